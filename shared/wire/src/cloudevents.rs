//! CloudEvents 1.0.2 in the JSON event format (`application/cloudevents+json`):
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.

use crate::json::ObjectWriter;
use base64::prelude::{BASE64_STANDARD, Engine};
use carillon_core::event::{Data, Event, Extension};

/// The version of the specification that we read and write.
pub const SPEC_VERSION: &str = "1.0";

/// The event as CloudEvents JSON. `subject` is the channel; data that is JSON already stands in it byte for byte as its
/// publisher wrote it.
#[must_use]
pub fn encode(event: &Event) -> String {
    let mut object = ObjectWriter::new();
    object.string("specversion", SPEC_VERSION);
    object.string("id", event.id.as_str());
    object.string("source", event.source.as_str());
    object.string("type", event.kind.as_str());
    object.string("subject", event.channel.as_str());
    object.string("time", event.time.as_str());
    // Without `datacontenttype` the data is application/json (section 3.1 of the format).
    match &event.data {
        Data::Text { content_type, .. } | Data::Bytes { content_type, .. } => {
            object.string("datacontenttype", content_type.as_str());
        }
        Data::None | Data::Json(_) => {}
    }
    if let Some(schema) = &event.schema {
        object.string("dataschema", schema.as_str());
    }
    for (name, value) in &event.extensions {
        match value {
            Extension::Boolean(value) => object.raw(name.as_str(), value),
            Extension::Integer(value) => object.raw(name.as_str(), value),
            Extension::Text(value) => object.string(name.as_str(), value.as_str()),
        };
    }
    match &event.data {
        Data::None => {}
        Data::Json(json) => {
            object.raw("data", json);
        }
        Data::Text { text, .. } => {
            object.string("data", text);
        }
        Data::Bytes { bytes, .. } => {
            object.string("data_base64", &BASE64_STANDARD.encode(bytes));
        }
    }
    object.finish()
}
