//! A way in for the fuzz targets.

use super::prelude::PreludeParser;

/// The beginning of a streamed answer, in pieces. Wherever they are cut, the same prelude and the same rest come out.
pub fn prelude(pieces: &[&[u8]]) {
    let read = |pieces: &[&[u8]]| {
        let mut parser = PreludeParser::default();
        let mut rest = Vec::new();
        let mut found = None;
        for piece in pieces {
            if found.is_some() {
                rest.extend_from_slice(piece);
                continue;
            }
            match parser.push(piece) {
                Ok(Some((prelude, body))) => {
                    rest.extend_from_slice(&body);
                    found = Some(prelude);
                }
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        found.map(|prelude| (prelude, rest))
    };
    let whole = pieces.concat();
    // Cut, what is too long is told a few bytes later; that alone may differ.
    if let (Some(cut), Some(whole)) = (read(pieces), read(&[&whole])) {
        assert_eq!(cut, whole);
    }
}
