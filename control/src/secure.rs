//! A byte stream between two agents made into records, encrypted and authenticated by the shared key.
//!
//! - [`wire`]: what records look like, and taking them out of arriving bytes. Pure.
//! - [`handshake`]: the first records of a connection, up to the keys of its two directions.
//! - [`channel`]: records under those keys (or in the clear).
//! - [`refusal`]: why a connection is not wanted, as one of a few countable reasons.
//!
//! Not here: what the records say ([`crate::hello`], [`crate::peers`]), and sockets.
//!
//! **The protocol.** Every record is a length (u32, big endian) and that many bytes, at most
//! [`wire::MAX_RECORD`]. First, both ends send a greeting: `convoy-control/1 keyed` or
//! `convoy-control/1 plain`, the dialer at once, the listener when the dialer's was right. Keyed, the two
//! messages of `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` follow, whose prologue names the protocol and who
//! plays which role. All records after these are sealed, and begin with a kind (one byte).
//!
//! **Why NNpsk0.** Agents have no identities beside the key: whoever has it may join. The ephemeral keys
//! give forward secrecy. A recorded first message can be replayed to a listener, who then knows nothing
//! more than before: nothing is told and nothing happens until a sealed record has come back.

pub mod channel;
pub mod handshake;
pub mod refusal;
pub mod wire;

pub use channel::{Opener, Sealer};
pub use handshake::Security;
pub use refusal::{Fault, Refusal};
