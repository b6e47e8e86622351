//! What a case is given: connected streams, with a puppet at the other end.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use libc::c_int;

use super::hosts;
use super::net::{self, Family};
use super::puppet::Puppet;
use super::stream::{Stream, WARM_UP, WARM_UP_BYTES, WARM_UP_FAR};

/// A case in one of its variants, `PLACE-ROLE-WARMTH`.
pub struct Case {
    place: Place,
    connects: bool,
    warm: bool,
    puppet: Option<Rc<Puppet>>,
    listening: Option<Listening>,
    next: u64,
}

/// Where the puppet is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a thread of the program.
    Thread,
    /// In a process of its own.
    Process,
    /// In a process on another host.
    Host,
}

#[derive(Clone, Copy)]
struct Listening {
    family: Family,
    /// Ours when this end accepts, else the puppet's and not a descriptor here.
    fd: c_int,
    port: u16,
}

/// This end of a connection, with a way to tell the other end what to do.
pub struct Link {
    /// This end.
    pub stream: Stream,
    /// The connection's number.
    pub number: u64,
    puppet: Rc<Puppet>,
    exchanges: usize,
}

impl Case {
    /// The case for a variant such as `process-client-warm`.
    pub fn new(variant: &str) -> Self {
        let words: Vec<&str> = variant.split('-').collect();
        let [place, role, warmth] = words.as_slice() else { panic!("{variant} is no PLACE-ROLE-WARMTH") };
        Self {
            place: match *place {
                "thread" => Place::Thread,
                "process" => Place::Process,
                "host" => Place::Host,
                _ => panic!("no puppet is in a {place}"),
            },
            connects: *role == "client",
            warm: *warmth == "warm",
            puppet: None,
            listening: None,
            next: 0,
        }
    }

    /// True when traffic has passed before the case begins.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// True when this end is the one that connects.
    pub fn connects(&self) -> bool {
        self.connects
    }

    /// True when the puppet is a process of its own.
    pub fn in_process(&self) -> bool {
        self.place != Place::Thread
    }

    /// True when the puppet is on another host.
    pub fn is_far(&self) -> bool {
        self.place == Place::Host
    }

    /// The puppet, started at the first need.
    pub fn puppet(&mut self) -> Rc<Puppet> {
        let make = || match self.place {
            Place::Thread => Puppet::in_thread(),
            Place::Process => Puppet::in_process(),
            Place::Host => Puppet::on_host(),
        };
        Rc::clone(self.puppet.get_or_insert_with(|| Rc::new(make())))
    }

    /// A connection over IPv4.
    pub fn link(&mut self) -> Link {
        self.link_over(Family::V4)
    }

    /// Several of them.
    pub fn links(&mut self, count: usize) -> Vec<Link> {
        (0..count).map(|_| self.link()).collect()
    }

    /// A connection, warmed up where the variant says so.
    pub fn link_over(&mut self, family: Family) -> Link {
        let mut link = self.cold_link_over(family);
        if self.warm {
            link.warm_up();
        }
        link
    }

    /// A connection on which nothing has passed in any variant.
    pub fn cold_link_over(&mut self, family: Family) -> Link {
        let puppet = self.puppet();
        let number = self.next;
        self.next += 1;
        let listening = self.listen(&puppet, family);
        let fd = if self.connects {
            puppet.start(&format!("{number} accept"));
            let fd = net::connected_to(family, &hosts::there(family, listening.port));
            assert_eq!(puppet.finish(), "accepted");
            fd
        } else {
            puppet.start(&format!("{number} connect {} {}", family.word(), listening.port));
            let fd = net::accept(listening.fd, libc::SOCK_CLOEXEC).unwrap();
            assert_eq!(puppet.finish(), "0");
            fd
        };
        net::no_delay(fd);
        let exchanges = if self.is_far() { WARM_UP_FAR } else { WARM_UP };
        Link { stream: Stream::new(fd, number, self.connects), number, puppet, exchanges }
    }

    /// One listener, kept while the connections are of the same family.
    fn listen(&mut self, puppet: &Puppet, family: Family) -> Listening {
        if let Some(listening) = self.listening.filter(|listening| listening.family == family) {
            return listening;
        }
        let (fd, port) = if self.connects {
            let answer = puppet.ask(&format!("0 listen {}", family.word()));
            (-1, answer.parse().expect("a port"))
        } else {
            net::listen_at(family, &hosts::here(family, 0))
        };
        let listening = Listening { family, fd, port };
        self.listening = Some(listening);
        listening
    }

    /// Puts a new puppet in the place of one that has gone.
    pub fn replace_puppet(&mut self) {
        self.puppet = None;
        if self.connects {
            self.listening = None;
        }
    }

    /// Ends the puppet and waits for it.
    pub fn end(mut self) {
        if let Some(puppet) = self.puppet.take()
            && let Ok(mut puppet) = Rc::try_unwrap(puppet)
        {
            puppet.end();
        }
    }
}

impl Link {
    /// So many small exchanges that the connection has left the kernel, usually.
    pub fn warm_up(&mut self) {
        self.start(&format!("pong {} {WARM_UP_BYTES}", self.exchanges));
        self.stream.ping(self.exchanges, WARM_UP_BYTES);
        assert_eq!(self.finish(), "done");
    }

    /// Gives the puppet a command for this connection.
    pub fn start(&self, command: &str) {
        self.puppet.start(&format!("{} {command}", self.number));
    }

    /// The answer of the puppet's oldest running command.
    pub fn finish(&self) -> String {
        self.puppet.finish()
    }

    /// Lets the puppet do something and waits for its answer.
    pub fn ask(&self, command: &str) -> String {
        self.start(command);
        self.finish()
    }

    /// The puppet at the other end.
    pub fn puppet(&self) -> &Rc<Puppet> {
        &self.puppet
    }
}

impl Deref for Link {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}
