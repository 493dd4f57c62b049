//! What IoT Core asks and hears
//! (<https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html>, "Defining your Lambda function").
//!
//! Only what is read is named: the types of `aws_lambda_events` refuse a whole request for one header that is out of the
//! ordinary.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A client that wants in.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub(crate) protocol_data: Option<ProtocolData>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct ProtocolData {
    pub(crate) mqtt: Option<Mqtt>,
}

/// What stands in the client's CONNECT. IoT Core leaves out what the client left out.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mqtt {
    pub(crate) username: Option<String>,
    /// In base64.
    pub(crate) password: Option<String>,
    pub(crate) client_id: Option<String>,
}

/// Whether the client comes in, and what it may do then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    pub(crate) is_authenticated: bool,
    pub(crate) principal_id: &'static str,
    pub(crate) disconnect_after_in_seconds: u32,
    pub(crate) refresh_after_in_seconds: u32,
    pub(crate) policy_documents: Vec<Policy>,
}

/// A policy of IoT Core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Policy {
    pub(crate) version: &'static str,
    pub(crate) statement: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Statement {
    pub(crate) effect: &'static str,
    pub(crate) action: &'static str,
    pub(crate) resource: String,
}

impl fmt::Debug for Request {
    /// Without what is in it: that is credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Request(…)")
    }
}
