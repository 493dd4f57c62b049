//! What `carillon bench` is asked for.

use clap::{Args, Subcommand, ValueEnum};

/// The most connections that are posted to: every one is a few rows in a table on this machine, and a row of posts to all.
const MAX_CONNECTIONS: i64 = 100_000;

/// The most rounds of a measurement; each is a publish to all connections.
const MAX_ROUNDS: i64 = 1_000;

/// `bench`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "It runs in a checkout and builds what it needs with cargo. It needs /proc, so Linux, and beside that nothing: the comparison \
                  with the SDK for JavaScript is left out where there is no Node.js.\n\nNothing else should run meanwhile."
)]
pub(crate) struct Options {
    /// What is measured
    #[arg(value_enum, value_name = "WHAT")]
    pub(crate) subject: Subject,
    /// fanout: how many connections one publish goes to; several numbers are measured one after the other
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=MAX_CONNECTIONS))]
    pub(crate) connections: Vec<u32>,
    /// fanout: how many publishes; the first makes the HTTP connections and is told apart
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=MAX_ROUNDS))]
    pub(crate) rounds: u32,
    /// fanout: leave the SDK for JavaScript out, which npm installs below target/bench
    #[arg(long)]
    pub(crate) no_node: bool,
    /// Write the figures into docs/performance.md, with the command, the machine and the commit
    #[arg(long)]
    pub(crate) write: bool,
    /// Measure development builds, to see whether the benchmark itself works. Its figures say nothing
    #[arg(long, hide = true, conflicts_with = "write")]
    pub(crate) development: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Subject {
    /// One publish to many connections: CPU time a post, posts a second, memory
    Fanout,
    /// From a publish to its receipt over WebSocket, MQTT and SSE
    Latency,
    /// 1, 4, 16 and 64 publishers on one channel
    Append,
    /// 1, 50 and 200 streams in one environment: memory, CPU time
    Streams,
    /// From the start of a function's process to its first request for work
    Start,
    /// Calls to AWS and capacity units of each operation
    Calls,
    /// Everything above
    All,
}

impl Subject {
    /// What is measured, one thing after the other.
    pub(crate) const fn parts(self) -> &'static [Self] {
        match self {
            Self::Fanout => &[Self::Fanout],
            Self::Latency => &[Self::Latency],
            Self::Append => &[Self::Append],
            Self::Streams => &[Self::Streams],
            Self::Start => &[Self::Start],
            Self::Calls => &[Self::Calls],
            Self::All => &[Self::Fanout, Self::Latency, Self::Append, Self::Streams, Self::Start, Self::Calls],
        }
    }

    /// Its name on the command line and in docs/performance.md.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Latency => "latency",
            Self::Append => "append",
            Self::Streams => "streams",
            Self::Start => "start",
            Self::Calls => "calls",
            Self::All => "all",
        }
    }
}

/// `bench-worker`: the parts of a benchmark that have a process of their own. Each reads a line from standard input for everything it
/// is to do, answers with a line on standard output, and ends with its input.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Worker {
    /// Answers every post with 200, and tells what came
    Sink,
    /// Posts what it is given, unsigned, over as many connections as posts are on their way
    Bare(Posting),
    /// Posts with the AWS SDK for Rust as it comes
    Sdk(Posting),
}

/// A loop of posts.
#[derive(Args, Clone, Debug)]
pub(crate) struct Posting {
    /// The URL of the API with its stage
    #[arg(long)]
    pub(crate) endpoint: String,
    /// Posts a round
    #[arg(long)]
    pub(crate) posts: u32,
    /// Posts on their way at once
    #[arg(long)]
    pub(crate) parallel: u32,
}
