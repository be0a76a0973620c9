//! What the parts of the hot path cost, one at a time and without sockets: `cargo bench`, or
//! `cargo bench -- route` for one of them. How to read it: `bench/README.md`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

mod encode;
mod fan_out;
mod house;
mod route;

fn main() {
    divan::main();
}
