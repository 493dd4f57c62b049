//! Faults as Lambda reports them.

use carillon_core::fault::Fault;
use lambda_runtime::Diagnostic;

/// A fault that an invocation ends with: Lambda hands its caller `{"errorType": code, "errorMessage": message}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct InvocationFailure(#[from] pub Fault);

impl From<InvocationFailure> for Diagnostic {
    fn from(InvocationFailure(fault): InvocationFailure) -> Self {
        Self { error_type: fault.code.as_str().to_owned(), error_message: fault.message.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_the_code_and_not_the_name_of_a_rust_type() {
        let diagnostic = Diagnostic::from(InvocationFailure(Fault::bad_request("channel", "is empty")));
        assert_eq!(diagnostic.error_type, "bad_request");
        assert_eq!(diagnostic.error_message, "channel: is empty");
    }
}
