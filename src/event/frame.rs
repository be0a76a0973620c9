//! Bytes for the socket, encoded once and shared by every session that gets them.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

/// One encoded piece of a stream, wrapped as an HTTP/1.1 chunk (RFC 9112, section 7.1).
///
/// Both forms are views of one buffer: a detached socket writes [`chunk`](Self::chunk), a body
/// whose framing hyper does takes [`body`](Self::body).
#[derive(Debug, Clone)]
pub struct Frame {
    chunk: Bytes,
    head: u8,
}

/// The encodings of one event that have been asked for so far.
#[derive(Debug, Default)]
pub struct FrameCache([OnceLock<Frame>; Variant::ALL.len()]);

/// One way to encode an event. Each is made once, on first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variant {
    /// With an `event:` line that names the type.
    pub named: bool,
    /// Compressed when that makes it smaller.
    pub compressed: bool,
}

impl Variant {
    /// Every variant, in the order of their caches.
    pub const ALL: [Self; 4] = [
        Self { named: false, compressed: false },
        Self { named: true, compressed: false },
        Self { named: false, compressed: true },
        Self { named: true, compressed: true },
    ];

    /// Its place in [`Variant::ALL`].
    pub fn index(self) -> usize {
        usize::from(self.named) + 2 * usize::from(self.compressed)
    }
}

impl Frame {
    /// Wraps `body`.
    pub fn new(body: &[u8]) -> Self {
        let head = format!("{:x}\r\n", body.len());
        let mut chunk = BytesMut::with_capacity(head.len() + body.len() + 2);
        chunk.put_slice(head.as_bytes());
        chunk.put_slice(body);
        chunk.put_slice(b"\r\n");
        Self { chunk: chunk.freeze(), head: u8::try_from(head.len()).unwrap_or_default() }
    }

    /// The bytes with their chunk head and end.
    pub fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    /// The bytes alone.
    pub fn body(&self) -> Bytes {
        self.chunk.slice(usize::from(self.head)..self.chunk.len().saturating_sub(2))
    }
}

impl FrameCache {
    /// The frame of `variant`, made by `encode` if nobody asked for it before.
    pub fn get(&self, variant: Variant, encode: impl FnOnce() -> Frame) -> Frame {
        match self.0.get(variant.index()) {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_and_body_share_one_buffer() {
        let frame = Frame::new(b"data: 1\n\n");
        assert_eq!(frame.chunk(), "9\r\ndata: 1\n\n\r\n");
        assert_eq!(frame.body(), "data: 1\n\n");
        assert_eq!(frame.chunk().slice(3..).as_ptr(), frame.body().as_ptr());
    }
}
