//! Failures outside streams: `application/problem+json` (RFC 9457). The one place that decides
//! which failure has which status.

use std::ops::Range;

use axum::extract::rejection::{
    BytesRejection, PathRejection, QueryRejection, RawPathParamsRejection,
};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::council::Refusal;
use crate::event::{ChannelError, PayloadError};
use crate::hub::Stopped;
use crate::session::Refused;
use crate::source::PublishError;

/// A failure, as clients see it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// After how many seconds it may be worth trying again.
    retry_after: Option<u32>,
    /// Further members, such as what was done all the same.
    more: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None, more: Map::new() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body = json!({"type": "about:blank", "title": title,
            "status": self.status.as_u16(), "detail": self.detail});
        if let Some(body) = body.as_object_mut() {
            body.extend(self.more);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Full => StatusCode::SERVICE_UNAVAILABLE,
            Refused::StreamsPerAddress | Refused::Held => StatusCode::TOO_MANY_REQUESTS,
        };
        Self { retry_after: Some(1), ..Self::new(status, refused.to_string()) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NoMembers(_) | Refusal::Full | Refusal::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::FullForClient => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Unknown => StatusCode::NOT_FOUND,
            Refusal::Taken => StatusCode::CONFLICT,
        };
        let passes =
            matches!(refusal, Refusal::Full | Refusal::FullForClient | Refusal::Unavailable);
        Self { retry_after: passes.then_some(5), ..Self::new(status, refusal.to_string()) }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let detail = error.to_string();
        match error {
            PublishError::Unavailable(_)
            | PublishError::Unconfirmed(_)
            | PublishError::Stopped(_) => Self::unavailable(detail),
            PublishError::Refused { .. } => Self::new(StatusCode::FORBIDDEN, detail),
            PublishError::Conflict { .. } => Self::new(StatusCode::CONFLICT, detail),
            PublishError::Partly { published, total, cause } => {
                let places = |range: Range<usize>| Value::from(range.collect::<Vec<_>>());
                let mut problem = Self { detail, ..(*cause).into() };
                problem.more.insert("published".to_owned(), places(0..published));
                problem.more.insert("unpublished".to_owned(), places(published..total));
                problem
            }
        }
    }
}

impl From<ChannelError> for Problem {
    fn from(error: ChannelError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<PayloadError> for Problem {
    fn from(error: PayloadError) -> Self {
        let status = match error {
            PayloadError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            PayloadError::NotUtf8 | PayloadError::NotJson(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

macro_rules! rejections {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), rejection.body_text())
            }
        }
    )*};
}
rejections!(BytesRejection, PathRejection, QueryRejection, RawPathParamsRejection);
