//! Why bytes from a peer mean nothing.
//!
//! Owns: the reasons. Must not: quote the peer's bytes; errors reach logs.

/// A message was refused at the edge. Always the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a protobuf message of the expected type.
    #[error("the bytes are not a message of the expected type")]
    Malformed,
    /// Larger than the message may be.
    #[error("the message has {length} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Bytes received.
        length: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// A field that must be there is not.
    #[error("the field `{field}` is missing")]
    Missing {
        /// Name of the field in the schema.
        field: &'static str,
    },
    /// A field of fixed length has another.
    #[error("the field `{field}` has {length} bytes, which is not its fixed length")]
    WrongLength {
        /// Name of the field in the schema.
        field: &'static str,
        /// Bytes received.
        length: usize,
    },
    /// A list or text is longer than its bound.
    #[error("the field `{field}` has {length} elements; at most {limit} are accepted")]
    TooLong {
        /// Name of the field in the schema.
        field: &'static str,
        /// Elements or bytes received.
        length: usize,
        /// Elements or bytes accepted.
        limit: usize,
    },
    /// A number or enumeration has no meaning here.
    #[error("the field `{field}` is out of its range")]
    OutOfRange {
        /// Name of the field in the schema.
        field: &'static str,
    },
    /// Text that would disturb a terminal or a log.
    #[error("the field `{field}` holds control characters")]
    ControlCharacter {
        /// Name of the field in the schema.
        field: &'static str,
    },
    /// The request breaks a bound of [`crate::job::JobSpec`].
    #[error("the job is malformed")]
    Job(#[source] crate::job::SpecError),
    /// The receipt's bytes are not canonical.
    #[error("the receipt is malformed")]
    Receipt,
}
