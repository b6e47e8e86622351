//! The inside of this crate for the fuzz targets of the package convoy-fuzz. Only there with the feature `fuzz`, and no
//! interface that anybody else may build on.

pub use crate::channel::AGENT_SERIAL;
pub use crate::channel::Trouble;
pub use crate::channel::pair::{GEOMETRY, Pair, Stream};
pub use crate::channel::queue::Mode;
pub use crate::channel::receive::Received;
pub use crate::channel::send::Sent;
pub use crate::port::Port;
pub use crate::process::{Identity, remember};
pub use crate::registry::{Answer, Found, Key, OfferRef, Progress, Registry};
pub use crate::shm::bell_page::BellPage;
pub use crate::shm::segment::{Geometry, Segment};
pub use convoy_aggregator::record::{Place, RECORD_BYTES, Record, in_order};
