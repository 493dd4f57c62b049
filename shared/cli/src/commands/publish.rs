//! `carillon publish`: one message over HTTP.

use super::{NOT_REACHABLE_HINT, REFUSED_HINT};
use crate::arguments::{DataSource, Publish};
use crate::endpoints::{self, Given, Kind};
use crate::exit::Exit;
use crate::failure::{Context, Failure, Outcome};
use crate::output::Output;
use carillon_client::http::{Message, PublishError, Publisher};
use carillon_core::fault::Fault;
use carillon_core::limits::PUBLISH_BYTES;
use carillon_wire::http::{Outcome as Published, Placed};
use serde::Serialize;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

/// Runs the command.
pub(super) async fn run(publish: Publish, ready_file: &Path, output: Output) -> Outcome<Exit> {
    let endpoint = endpoints::resolve(Kind::Publish, Given::new(publish.url, publish.access.token), ready_file)?;
    let data = read(publish.data)?;
    let publisher = Publisher::new(&endpoint.url, Some(endpoint.token)).map_err(failure)?;
    let message = Message { channel: publish.channel.to_string(), id: publish.id, kind: publish.kind, data: Some(data) };
    for published in publisher.publish(&[message]).await.map_err(failure)? {
        let Published { channel, id, fate } = published;
        let placed = fate.map_err(|fault| refused(&fault))?;
        output.result(|| text(&channel, &id, placed), &Line::new(&channel, &id, placed))?;
    }
    Ok(Exit::Done)
}

/// A message's result for programs: as `POST /publish` answers it.
#[derive(Serialize)]
struct Line<'text> {
    channel: &'text str,
    id: &'text str,
    epoch: String,
    offset: u64,
    duplicate: bool,
}

impl<'text> Line<'text> {
    fn new(channel: &'text str, id: &'text str, Placed { position, duplicate }: Placed) -> Self {
        Self { channel, id, epoch: position.epoch.to_string(), offset: position.offset, duplicate }
    }
}

fn text(channel: &str, id: &str, Placed { position, duplicate }: Placed) -> String {
    let note = if duplicate { " (published before under this id)" } else { "" };
    format!("{channel} {position} id {id}{note}")
}

/// The data, as JSON.
fn read(source: DataSource) -> Outcome<Box<RawValue>> {
    let (json, place) = match source {
        DataSource { text: Some(text), .. } => {
            let json = serde_json::to_string(&text).map_err(io::Error::from)?;
            (json, "--text".to_owned())
        }
        DataSource { data: Some(data), .. } => (data, "--data".to_owned()),
        DataSource { file: Some(file), .. } if file.as_os_str() != "-" => {
            let place = file.display().to_string();
            (limited(File::open(&file), &place)?, place)
        }
        DataSource { file, .. } => {
            if file.is_none() && io::stdin().is_terminal() {
                let failure = Failure::new(Exit::Usage, "there is no data");
                return Err(failure.hint("give --data JSON, --text TEXT or --file FILE, or pipe JSON into this command"));
            }
            (limited(Ok(io::stdin().lock()), "standard input")?, "standard input".to_owned())
        }
    };
    RawValue::from_string(json).map_err(|error| {
        let failure = Failure::new(Exit::Usage, Context::new(format!("{place} holds no JSON"), error));
        failure.hint("--text takes data that is plain text")
    })
}

fn limited(source: io::Result<impl Read>, place: &str) -> Outcome<String> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, Context::new(format!("cannot read {place}"), error));
    let mut text = String::new();
    let limit = u64::try_from(PUBLISH_BYTES).unwrap_or(u64::MAX);
    source.map_err(failed)?.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > PUBLISH_BYTES {
        return Err(Failure::new(Exit::Usage, format!("{place} is over the limit of {PUBLISH_BYTES} bytes of one publish")));
    }
    Ok(text)
}

fn failure(error: PublishError) -> Failure {
    match error {
        error if error.is_refused_token() => Failure::new(Exit::Refused, error).hint(REFUSED_HINT),
        PublishError::Refused { fault, .. } => refused(&fault),
        PublishError::Unreachable(_) => Failure::new(Exit::NotReachable, error).hint(NOT_REACHABLE_HINT),
        PublishError::Url { .. } => Failure::new(Exit::Usage, error),
        PublishError::NoAnswer(_) => Failure::new(Exit::Failed, error)
            .hint("whether it was published is not known; under an --id of its own it can safely be published again"),
        PublishError::Client(_) | PublishError::Foreign { .. } => Failure::new(Exit::Failed, error),
    }
}

fn refused(fault: &Fault) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("{}: {}", fault.code, fault.message));
    if fault.code.retry() { failure.hint("the same command may succeed later") } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const NOTHING: DataSource = DataSource { data: None, text: None, file: None };

    #[test]
    fn data_is_json_as_it_stands_and_text_becomes_a_string() {
        let data = read(DataSource { data: Some(r#"{"a": 1.0}"#.to_owned()), ..NOTHING }).expect("JSON");
        assert_eq!(data.get(), r#"{"a": 1.0}"#);
        let text = read(DataSource { text: Some("say \"hi\"".to_owned()), ..NOTHING }).expect("text");
        assert_eq!(text.get(), r#""say \"hi\"""#);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("data.json");
        std::fs::write(&file, "[1, 2]\n").expect("written");
        assert_eq!(read(DataSource { file: Some(file), ..NOTHING }).expect("JSON").get(), "[1, 2]");
    }

    #[test]
    fn what_is_no_json_is_named_with_its_place() {
        let failure = read(DataSource { data: Some("hello".to_owned()), ..NOTHING }).expect_err("no JSON");
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.to_string().starts_with("error: --data holds no JSON\n"), "{failure}");
        let failure = read(DataSource { file: Some("/nowhere/data.json".into()), ..NOTHING }).expect_err("no file");
        assert!(failure.to_string().starts_with("error: cannot read /nowhere/data.json\n"), "{failure}");
    }

    #[test]
    fn more_than_one_publish_takes_is_not_sent() {
        let full = vec![b' '; PUBLISH_BYTES];
        assert!(limited(Ok(Cursor::new(&full)), "a file").is_ok());
        let failure = limited(Ok(Cursor::new([&full[..], b" "].concat())), "a file").expect_err("too much");
        assert!(failure.to_string().contains("limit of 4194304 bytes"), "{failure}");
    }
}
