//! What a client speaks: what holds for one protocol holds for all.

use std::sync::LazyLock;

use reqwest::{Client, ClientBuilder, RequestBuilder, Version};

/// A stream over HTTP/1.1 leaves hyper once it has begun; over the others it goes through the body
/// of a response to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Without chunks: the body ends with the connection.
    Http10,
    Http11,
    /// With prior knowledge.
    Http2,
}

/// A test over each protocol, for functions that take one.
macro_rules! over_each_protocol {
    ($($test:ident)+) => {$(
        mod $test {
            use crate::support::Protocol;

            #[tokio::test]
            async fn http_1_0() {
                super::$test(Protocol::Http10).await;
            }

            #[tokio::test]
            async fn http_1_1() {
                super::$test(Protocol::Http11).await;
            }

            #[tokio::test]
            async fn http_2() {
                super::$test(Protocol::Http2).await;
            }
        }
    )+};
}
pub(crate) use over_each_protocol;

impl Protocol {
    /// A request on a connection of its own.
    pub(crate) fn request(self, method: &str, url: &str) -> RequestBuilder {
        // Made once: reading the system's certificates takes longer than most tests.
        static HTTP1: LazyLock<Client> = LazyLock::new(|| builder().build().unwrap());
        static HTTP2: LazyLock<Client> =
            LazyLock::new(|| builder().http2_prior_knowledge().build().unwrap());
        let client = if self == Self::Http2 { &HTTP2 } else { &HTTP1 };
        client.request(method.parse().unwrap(), url).version(self.version())
    }

    pub(crate) fn version(self) -> Version {
        match self {
            Self::Http10 => Version::HTTP_10,
            Self::Http11 => Version::HTTP_11,
            Self::Http2 => Version::HTTP_2,
        }
    }
}

/// A client that does not reuse connections.
pub(super) fn builder() -> ClientBuilder {
    // Every test may come first.
    sluice::http::choose_cryptography();
    Client::builder().pool_max_idle_per_host(0)
}
