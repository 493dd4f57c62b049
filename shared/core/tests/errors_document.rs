//! docs/errors.md says of every code what its functions say.

use carillon_core::fault::{ErrorCode, Reconnect};
use std::path::Path;

/// The cells of the table of codes, row by row, without its head and its rule.
fn documented() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table = text.lines().skip_while(|line| !line.starts_with("| code |")).take_while(|line| line.starts_with('|'));
    table.skip(2).map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

const fn connection(code: ErrorCode) -> &'static str {
    match code.reconnect() {
        Reconnect::Stay => "stay",
        Reconnect::WithNewToken => "with new token",
        Reconnect::Never => "never",
    }
}

#[test]
fn every_code_is_documented_as_it_is() {
    let expected: Vec<Vec<String>> = ErrorCode::ALL
        .into_iter()
        .map(|code| {
            let retry = if code.retry() { "yes" } else { "no" };
            let (name, rpc) = (format!("`{code}`"), format!("`{}`", code.rpc_code()));
            vec![name, code.http_status().to_string(), rpc, retry.to_owned(), connection(code).to_owned()]
        })
        .collect();
    let found: Vec<Vec<String>> = documented().into_iter().map(|cells| cells.into_iter().take(5).collect()).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_code_says_when_it_comes() {
    for cells in documented() {
        assert!(cells.len() == 6 && cells[5].ends_with('.'), "{cells:?}");
    }
}
