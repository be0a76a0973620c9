//! Every way a session can end, by name.

/// Why a session ended. The name is its label in the metrics and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The stream's terminal event was said.
    Completed,
    /// The client came back to a stream whose end it has had.
    AlreadyOver,
    /// The client closed its connection, or it broke.
    ClientGone,
    /// The client read too slowly for its outbox; it may resume from its last id.
    SlowConsumer,
    /// Too much waited on the node, and most of it for this client; it may resume from its last id.
    Shed,
    /// The broker does not allow a channel of the stream; the client was told.
    Refused,
    /// The node stops; the client was told.
    ServerStopping,
    /// The node stopped before the client could be told.
    Aborted,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::AlreadyOver,
        Self::ClientGone,
        Self::SlowConsumer,
        Self::Shed,
        Self::Refused,
        Self::ServerStopping,
        Self::Aborted,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::AlreadyOver => "already_over",
            Self::ClientGone => "client_gone",
            Self::SlowConsumer => "slow_consumer",
            Self::Shed => "shed",
            Self::Refused => "refused",
            Self::ServerStopping => "server_stopping",
            Self::Aborted => "aborted",
        }
    }
}
