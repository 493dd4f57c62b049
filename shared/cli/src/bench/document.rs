//! docs/performance.md: the text is written by people, the figures between the markers by `carillon bench --write`.

use std::io;
use std::path::Path;

/// Why figures could not be written down.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    /// The file cannot be read or written.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has no place for them.
    #[error("{path} has no lines '{begin}' and '{end}', in this order and once each")]
    NoPlace {
        /// The file.
        path: String,
        /// The line before the figures.
        begin: String,
        /// The line after them.
        end: String,
    },
}

/// Puts `text` between the markers of `subject`, in place of what is there.
///
/// # Errors
/// When the file cannot be used or has no such markers.
pub(super) fn write(path: &Path, subject: &str, text: &str) -> Result<(), DocumentError> {
    let file = |source| DocumentError::File { path: path.display().to_string(), source };
    let old = std::fs::read_to_string(path).map_err(file)?;
    let (begin, end) = (format!("<!-- bench {subject} -->"), format!("<!-- end of bench {subject} -->"));
    let new = between(&old, &begin, &end, text);
    let new = new.ok_or(DocumentError::NoPlace { path: path.display().to_string(), begin, end })?;
    std::fs::write(path, new).map_err(file)
}

fn between(document: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    let once = !rest.contains(begin) && !after.contains(end) && !before.contains(end);
    once.then(|| format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_replace_the_ones_before_and_nothing_else() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        std::fs::write(&path, "# A\n<!-- bench start -->\n<!-- end of bench start -->\nB\n").expect("written");
        for text in ["one", "two\n"] {
            write(&path, "start", text).expect("there is a place");
        }
        let written = std::fs::read_to_string(&path).expect("read");
        assert_eq!(written, "# A\n<!-- bench start -->\n\ntwo\n\n<!-- end of bench start -->\nB\n");
    }

    #[test]
    fn a_document_without_the_place_stays_as_it_is() {
        for document in ["", "a b", "e b", "b e e", "b b e", "e b e"] {
            assert_eq!(between(document, "b", "e", "text"), None, "{document}");
        }
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let error = write(&path, "start", "text").expect_err("it is empty");
        assert!(error.to_string().contains("<!-- bench start -->"), "{error}");
    }
}
