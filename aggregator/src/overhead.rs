//! What a batch costs on the wire: bytes of all packets that carry one RDMA write with immediate data.
//!
//! Devices count packets, not what they were for, and most of them are not asked for their counters by everybody. The
//! formats are fixed, so the bytes follow from the length of a write. Counted are frames as a capture shows them,
//! without the preamble, the check sequence and the gap between frames ([`GAP`]).
//!
//! Sources: InfiniBand Architecture Specification 1.4, volume 1, chapter 9 (BTH, RETH, ImmDt, AETH, ICRC) and
//! chapter 7 (LRH, VCRC), annex A17 (RoCEv2); RFC 5040 and RFC 5041 (RDMAP, DDP), RFC 5044 (MPA), RFC 7306 (immediate
//! data in iWARP); RFC 9293 and RFC 7323 (TCP and its timestamps); libfabric's prov/tcp/src/xnet_proto.h. What RoCEv2
//! costs was compared with captures of Soft-RoCE, which the tests repeat.
//!
//! Not modelled: packets that are sent again, connection management, congestion notifications.

/// What Ethernet adds to a frame on the wire: preamble 8, check sequence 4, gap 12.
pub const GAP: u64 = 24;

const ETHERNET: u64 = 14;
const IPV4: u64 = 20;
const IPV6: u64 = 40;
const UDP: u64 = 8;
/// Base transport header, in every packet.
const BTH: u64 = 12;
/// RDMA extended transport header, in the first packet of a write.
const RETH: u64 = 16;
/// Immediate data, in the last packet.
const IMMEDIATE: u64 = 4;
/// Acknowledgement extended transport header.
const AETH: u64 = 4;
const ICRC: u64 = 4;
/// Local route header and the check of the link: InfiniBand only.
const LRH: u64 = 8;
const VCRC: u64 = 2;
/// Payload of an Ethernet packet of TCP with timestamps, and what surrounds it: Ethernet, IPv4, 32 of TCP.
const SEGMENT: u64 = 1448;
const SEGMENT_OVERHEAD: u64 = 66;
/// Length and CRC of MPA, and the tagged and untagged headers of DDP with RDMAP's byte in them.
const MPA: u64 = 2 + 4;
const TAGGED: u64 = 14;
const UNTAGGED: u64 = 18;
/// Immediate data of iWARP (RFC 7306, 7.1).
const IWARP_IMMEDIATE: u64 = 8;
/// Headers of the provider `tcp`: base 16, immediate data 8, and one place in the peer's memory.
const XNET: u64 = 16 + 8 + XNET_PLACE;
const XNET_PLACE: u64 = 24;

/// How writes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RDMA over Converged Ethernet, version 2.
    Roce {
        /// Payload of one packet: 256, 512, 1024, 2048 or 4096.
        mtu: u16,
        /// IPv6 instead of IPv4.
        ipv6: bool,
    },
    /// InfiniBand within one subnet.
    InfiniBand {
        /// As above.
        mtu: u16,
    },
    /// RDMA over TCP, assumed as devices do it on Ethernet with an MTU of 1500: one FPDU in each segment, CRC, no
    /// markers, immediate data as a message of its own.
    Iwarp,
    /// libfabric's provider `tcp`, assumed on Ethernet with an MTU of 1500 and each write pushed by itself.
    Tcp,
}

impl Transport {
    /// Bytes on the wire for a write of `payload` bytes with immediate data.
    #[must_use]
    pub fn write(self, payload: u32) -> u64 {
        let payload = u64::from(payload);
        match self {
            Self::Roce { .. } | Self::InfiniBand { .. } => self.packets(payload, RETH + IMMEDIATE),
            Self::Iwarp => fpdus(payload, TAGGED) + SEGMENT_OVERHEAD + MPA + UNTAGGED + IWARP_IMMEDIATE,
            Self::Tcp => segments(payload + XNET),
        }
    }

    /// Bytes on the wire for a message of `payload` bytes, as providers without one-sided writes send.
    #[must_use]
    pub fn message(self, payload: u32) -> u64 {
        let payload = u64::from(payload);
        match self {
            Self::Roce { .. } | Self::InfiniBand { .. } => self.packets(payload, 0),
            Self::Iwarp => fpdus(payload, UNTAGGED),
            Self::Tcp => segments(payload + XNET - XNET_PLACE),
        }
    }

    /// Bytes of the packet by which a device (for TCP, the kernel) says that a write has arrived. One for each write is
    /// the most there can be: devices may answer several at once.
    #[must_use]
    pub fn acknowledgement(self) -> u64 {
        match self {
            Self::Roce { .. } | Self::InfiniBand { .. } => self.around() + AETH,
            Self::Iwarp | Self::Tcp => SEGMENT_OVERHEAD,
        }
    }

    /// Bytes of all packets of a request with `extra` bytes of headers beside those in every packet.
    fn packets(self, payload: u64, extra: u64) -> u64 {
        let mtu = match self {
            Self::Roce { mtu, .. } | Self::InfiniBand { mtu } => u64::from(mtu.max(256)),
            Self::Iwarp | Self::Tcp => SEGMENT,
        };
        // All packets but the last are full, so only that one is padded to four bytes.
        payload + padding(payload) + extra + count(payload, mtu) * self.around()
    }

    /// What is in every packet beside its payload.
    fn around(self) -> u64 {
        match self {
            Self::Roce { ipv6, .. } => ETHERNET + if ipv6 { IPV6 } else { IPV4 } + UDP + BTH + ICRC,
            Self::InfiniBand { .. } => LRH + BTH + ICRC + VCRC,
            Self::Iwarp | Self::Tcp => SEGMENT_OVERHEAD,
        }
    }
}

/// The path MTU that an RDMA device chooses on Ethernet with this MTU: the largest there is whose packets fit.
#[must_use]
pub fn roce_mtu(ethernet: u64) -> u16 {
    let most = IPV6 + UDP + BTH + RETH + IMMEDIATE + ICRC;
    [4096, 2048, 1024, 512].into_iter().find(|mtu| u64::from(*mtu) + most <= ethernet).unwrap_or(256)
}

/// Packets for so many bytes; one for none.
fn count(bytes: u64, room: u64) -> u64 {
    bytes.div_ceil(room).max(1)
}

fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % 4
}

/// Bytes with TCP and what is below it.
fn segments(bytes: u64) -> u64 {
    bytes + count(bytes, SEGMENT) * SEGMENT_OVERHEAD
}

/// Bytes of a message of iWARP, whose FPDUs have `header` bytes of DDP and end at a multiple of four.
fn fpdus(payload: u64, header: u64) -> u64 {
    let count = count(payload, SEGMENT - MPA - header);
    let bytes = payload + count * (MPA + header);
    // Full ones end there by themselves.
    bytes + padding(bytes) + count * SEGMENT_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT_ROCE: Transport = Transport::Roce { mtu: 1024, ipv6: false };

    #[test]
    fn captured_frames_of_soft_roce() {
        // Sizes of Ethernet frames as captured: SEND, RDMA WRITE, RDMA WRITE with immediate.
        for (payload, send, write, with_immediate) in [(16, 74, 90, 94), (64, 122, 138, 142)] {
            assert_eq!(SOFT_ROCE.message(payload), send);
            assert_eq!(SOFT_ROCE.packets(u64::from(payload), RETH), write);
            assert_eq!(SOFT_ROCE.write(payload), with_immediate);
        }
        assert_eq!(SOFT_ROCE.acknowledgement(), 62);
    }

    #[test]
    fn headers_are_in_every_packet_but_places_once() {
        let one = SOFT_ROCE.write(1024);
        assert_eq!(one, 1024 + 58 + 20);
        assert_eq!(SOFT_ROCE.write(1025), one + 58 + 4, "one byte more: a packet, padded");
        assert_eq!(SOFT_ROCE.write(2048), one + 58 + 1024);
        assert_eq!(Transport::Roce { mtu: 4096, ipv6: true }.write(65536), 65536 + 16 * 78 + 20);
        assert_eq!(Transport::InfiniBand { mtu: 4096 }.write(64), 64 + 26 + 20);
        assert_eq!(Transport::InfiniBand { mtu: 4096 }.acknowledgement(), 30);
    }

    #[test]
    fn an_empty_write_is_one_packet() {
        assert_eq!(SOFT_ROCE.write(0), 78);
        assert_eq!(Transport::Tcp.write(0), 66 + 48);
        assert_eq!(Transport::Iwarp.write(0), 66 + 20 + 66 + 32);
    }

    #[test]
    fn tcp_is_cut_into_segments() {
        assert_eq!(Transport::Tcp.write(1400), 1448 + 66);
        assert_eq!(Transport::Tcp.write(1401), 1449 + 2 * 66);
        assert_eq!(Transport::Tcp.message(16), 16 + 24 + 66);
        assert_eq!(Transport::Iwarp.write(1428), 1448 + 66 + 98);
        assert_eq!(Transport::Iwarp.write(1429), 1448 + 66 + 24 + 66 + 98);
    }

    #[test]
    fn nothing_overflows_or_shrinks() {
        for transport in [SOFT_ROCE, Transport::InfiniBand { mtu: 0 }, Transport::Iwarp, Transport::Tcp] {
            let mut last = 0;
            for payload in 0..9000 {
                let bytes = transport.write(payload);
                assert!(bytes >= last && bytes > u64::from(payload), "{transport:?} {payload}");
                last = bytes;
            }
            assert!(transport.write(u32::MAX) > u64::from(u32::MAX));
            assert!(transport.message(u32::MAX) > u64::from(u32::MAX));
        }
    }

    #[test]
    fn devices_choose_the_mtu_that_fits() {
        for (ethernet, mtu) in [(1500, 1024), (9000, 4096), (4200, 4096), (2200, 2048), (500, 256)] {
            assert_eq!(roce_mtu(ethernet), mtu);
        }
    }
}
