//! What the tests of this crate share.

use carillon_aws::config::AwsConfig;
use carillon_aws::environment::Environment;

/// A configuration in which these variables name the endpoints.
pub(crate) fn config(endpoints: &[(&str, &str)]) -> AwsConfig {
    let identity = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "not-a-secret")];
    let environment: Environment = identity.into_iter().chain(endpoints.iter().copied()).collect();
    AwsConfig::from_environment(&environment).expect("whole and well-formed")
}
