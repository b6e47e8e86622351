//! Where the fields of a side's memory lie, for [`crate::anchor`].

use super::{Held, LaneSending, Party, Receiving, Sending, Shared, Stream};
use crate::anchor::layout;

layout! {
    /// Where a mapping's fields lie.
    PartyLayout of Party { base }
}

layout! {
    /// Where the head's fields lie; the streams follow it.
    SharedLayout of Shared { send_lock, sending, receive_lock, taken, held_until, broken }
}

layout! {
    /// Where the sending half's fields lie.
    LaneSendingLayout of LaneSending { blocks, held }
}

layout! {
    /// Where the fields of a batch lie.
    HeldLayout of Held { on }
}

layout! {
    /// Where a stream's fields lie.
    StreamLayout of Stream { sending, receiving, queued, kernel_read, kernel_senders, holders, recovery }
}

layout! {
    /// Where the fields of a stream's sending half lie; `credit` is two words: sent, limit.
    SendingLayout of Sending { credit, path, generation, stay }
}

layout! {
    /// Where the fields of a stream's receiving half lie; `credit` is four words: received, consumed, granted, window.
    ReceivingLayout of Receiving { credit, path, recalled }
}
