//! The gateway as its users meet it: over real sockets, with a real Redis and a real browser. One
//! binary, because linking is what takes the time.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::float_cmp,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails"
)]
#![expect(clippy::cognitive_complexity, reason = "every assertion counts as a branch")]

mod support;

mod admin;
mod browser;
mod churn;
mod cli;
mod continuity;
mod council;
mod dashboards;
mod drain;
mod hostile;
mod layering;
mod limits;
mod options;
mod publish;
mod readme;
mod recipes;
mod redis;
mod settings;
mod sockets;
mod sources;
mod storms;
mod streams;
mod tls;
