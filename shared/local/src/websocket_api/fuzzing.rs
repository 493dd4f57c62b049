//! A way in for the fuzz targets.

use super::route::RouteSelection;

/// A route selection expression, and a message that it is applied to.
pub fn routes(expression: &str, message: &str) {
    if let Ok(selection) = RouteSelection::parse(expression) {
        let _ = selection.evaluate(message);
    }
}
