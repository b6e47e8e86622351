//! Pairs of our own `host_stream` programs: a server on one host, a client on another.
//!
//! The client sends bytes to and fro until it is told to go. Meanwhile the harness waits until both ends of every
//! connection are accelerated, so that everything which follows is.

use std::fs;
use std::path::PathBuf;

use super::world::{Host, World};
use super::{Program, until};
use crate::user::become_user;

/// A running pair.
pub struct Pair<'w> {
    world: &'w World,
    /// The one that listens.
    pub server: Program<'w>,
    /// The one that connects.
    pub client: Program<'w>,
    connections: u64,
    go: PathBuf,
    stop: PathBuf,
}

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Job {
    /// The path of `host_stream`.
    pub program: &'static str,
    /// What it does.
    pub scenario: &'static str,
    /// For both ends.
    pub options: Vec<String>,
    /// How many connections.
    pub connections: u64,
    /// Where the server listens.
    pub port: u16,
    /// Which of the server's networks it listens in.
    pub network: usize,
    /// With the IPv6 address.
    pub six: bool,
    /// The server runs as this user.
    pub server_user: Option<u32>,
}

impl Job {
    /// A scenario with options like `--bytes 100000`.
    pub fn new(program: &'static str, scenario: &'static str, connections: u64, options: &str) -> Self {
        let options = options.split_whitespace().map(str::to_owned).collect();
        Self {
            program,
            scenario,
            options,
            connections,
            port: 7000,
            network: 0,
            six: false,
            server_user: None,
        }
    }

    /// Another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Another network.
    #[must_use]
    pub fn network(mut self, network: usize) -> Self {
        self.network = network;
        self
    }

    /// IPv6.
    #[must_use]
    pub fn six(mut self) -> Self {
        self.six = true;
        self
    }

    /// Another user for the server.
    #[must_use]
    pub fn server_user(mut self, user: u32) -> Self {
        self.server_user = Some(user);
        self
    }

    fn address(&self, server: Host<'_>) -> String {
        let (network, port) = (server.world.network(), self.port);
        if self.six {
            format!("[{}]:{port}", network.address6(server.number, self.network))
        } else {
            format!("{}:{port}", network.address(server.number, self.network))
        }
    }

    /// Starts the server on one host and the client on another, both as the world is.
    pub fn start<'w>(&self, server: Host<'w>, client: Host<'w>) -> Pair<'w> {
        self.start_as(server, client, [true, true])
    }

    /// Starts both; which of them (server, client) have the library.
    pub fn start_as<'w>(&self, server: Host<'w>, client: Host<'w>, preloaded: [bool; 2]) -> Pair<'w> {
        self.start_at(server, client, preloaded, &self.address(server))
    }

    /// Starts both; the client connects to some address that leads to the server.
    pub fn start_at<'w>(
        &self,
        server: Host<'w>,
        client: Host<'w>,
        preloaded: [bool; 2],
        address: &str,
    ) -> Pair<'w> {
        let world = server.world;
        let (go, stop) = (world.path(world.fresh("go")), world.path(world.fresh("stop")));
        let count = self.connections.to_string();
        let arguments = |role: &str, address: &str| {
            let mut all = vec![self.scenario, role, address, "--connections", &count];
            all.extend(self.options.iter().map(String::as_str));
            all.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        // Every user can read the copy.
        let program = match self.server_user {
            Some(_) => world.copied(self.program),
            None => self.program.into(),
        };
        let start = |host: Host<'w>, words: Vec<String>, name: &str, preloaded: bool, user: Option<u32>| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let make = if preloaded { Host::command } else { Host::plain };
            let mut command = make(&host, &program, &words);
            if let Some(user) = user {
                become_user(&mut command, user, user);
            }
            host.start(name, command)
        };
        let (listen, user) = (arguments("--listen", &self.address(server)), self.server_user);
        let mut serving = start(server, listen, "server", preloaded[0], user);
        serving.says("listening");
        let mut words = arguments("--connect", address);
        words.extend(["--go".into(), go.display().to_string(), "--stop".into(), stop.display().to_string()]);
        let client = start(client, words, "client", preloaded[1], None);
        Pair { world, server: serving, client, connections: self.connections, go, stop }
    }

    /// Runs it on accelerated connections, from the beginning to the successful end of both.
    pub fn run(&self, server: Host<'_>, client: Host<'_>) -> String {
        let mut pair = self.start(server, client);
        pair.connected();
        pair.accelerated();
        pair.go();
        pair.succeeds()
    }
}

impl Pair<'_> {
    /// Waits until every connection is made.
    pub fn connected(&mut self) {
        self.client.says("connected");
    }

    /// Waits until both ends of every connection are accelerated, where the world is.
    pub fn accelerated(&mut self) {
        if !self.world.accelerated() {
            return;
        }
        let mut hopeless = false;
        until(|| {
            self.running();
            hopeless = self.turned_down();
            hopeless || self.are_far()
        });
        let (found, wanted) = (self.far(), self.connections);
        let turned_down = if hopeless { ", and the others never will be" } else { "" };
        self.world.check(
            self.are_far(),
            &format!("server and client have {found:?} far streams of {wanted}{turned_down}"),
        );
    }

    fn far(&self) -> [u64; 2] {
        [&self.server, &self.client].map(|program| program.live().get("streams_far"))
    }

    /// Whether both ends of every connection are accelerated.
    pub fn are_far(&self) -> bool {
        self.far().iter().all(|count| *count >= self.connections)
    }

    /// Fails when one of them has ended.
    pub fn running(&mut self) {
        for (name, program) in [("server", &mut self.server), ("client", &mut self.client)] {
            if !program.running() {
                self.world.fail(&format!("the {name} has ended before its time\n{}", program.complaints()));
            }
        }
    }

    /// Whether a connection stays with the kernel for good.
    pub fn turned_down(&self) -> bool {
        [&self.server, &self.client].iter().any(|program| program.live().starting_with("bypasses_") > 0)
    }

    /// Lets the scenario begin.
    pub fn go(&self) {
        fs::write(&self.go, "").expect("file for a program");
    }

    /// Lets a load come to its end.
    pub fn stop(&self) {
        fs::write(&self.stop, "").expect("file for a program");
    }

    /// Units of traffic that a load's client has got back.
    pub fn progress(&self) -> u64 {
        let output = self.client.output();
        let last = output.lines().rev().find_map(|line| line.strip_prefix("progress "));
        last.map_or(0, |number| number.parse().expect("a number"))
    }

    /// Waits until traffic has gone on for some units.
    pub fn goes_on(&mut self, units: u64) {
        let wanted = self.progress() + units;
        let world = self.world;
        world.eventually(&format!("traffic goes on to {wanted}"), || {
            self.running();
            self.progress() >= wanted
        });
    }

    /// Waits for the successful end of both; what they have said, without progress.
    pub fn succeeds(self) -> String {
        let (client, server) = (self.client.succeeds(), self.server.succeeds());
        let lines = client.lines().map(|line| format!("client: {line}\n"));
        let lines = lines.chain(server.lines().map(|line| format!("server: {line}\n")));
        lines.filter(|line| !line.contains(": progress ")).collect()
    }
}
