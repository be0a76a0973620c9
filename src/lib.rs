//! Sluice: a gateway for live streams.
//!
//! Worker services publish small JSON events to Redis or over HTTP; browsers open one
//! `EventSource` and see exactly the events they may see: in order, at once, and again after a
//! broken connection.
//!
//! ```text
//!    POST /publish ─┐
//!    council ───────┴► Publisher ─┐
//!                                 ▼        Inlet                        frames
//!    Redis Pub/Sub ─┐                           ┌ history, snapshot
//!                   ├─► source ─────────► hub ──┴ shards ──► session ──────► wire ──► client
//!    embedded ──────┘      ▲               │                    │
//!                          └─── demand ────┘◄──── subscribe ────┘
//! ```
//!
//! The modules stand in the order of the flow. Each may import only what `ARCHITECTURE.md` lists
//! for it; a test holds the table. The words they use are explained there too.

pub mod event;

pub mod source;

pub mod hub;

pub mod session;

pub mod wire;

pub mod streams;

pub mod council;

pub mod http;

pub mod telemetry;

pub mod settings;

pub mod shutdown;

pub mod gateway;

pub mod demo;

pub mod cli;
