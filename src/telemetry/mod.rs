//! What the people on call see: logs on standard error, numbers at `/metrics`.

mod log;
mod metrics;

pub use log::{Flood, init};
pub use metrics::Metrics;
