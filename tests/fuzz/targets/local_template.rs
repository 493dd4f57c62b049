//! A template.

#![no_main]

use carillon_local::template::{Document, Endpoints, Inputs};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    if let Ok(document) = Document::parse(text, Path::new("/nowhere")) {
        let _ = document.resolve(&Inputs::default(), &Endpoints::default());
    }
});
