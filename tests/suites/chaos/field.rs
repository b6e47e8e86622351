//! Servers on one host, their clients on that host and on the other: started, killed, started again, and asked how far they are.
//! How each kind of server is started is said in [`servers`].

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use convoy_tests::arena::find;
use convoy_tests::hosts::{Host, PATIENCE, Program, World};

use crate::place::Place;
use crate::servers::{self, KINDS};

/// The host of the servers.
const SERVERS: usize = 1;

/// What clients have done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub operations: u64,
    pub bytes: u64,
    pub connections: u64,
    pub ends: u64,
}

impl std::ops::Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            bytes: self.bytes + other.bytes,
            connections: self.connections + other.connections,
            ends: self.ends + other.ends,
        }
    }
}

/// A server or a client.
pub struct Party<'w> {
    pub kind: usize,
    pub host: usize,
    pub program: Option<Program<'w>>,
    /// Something is done to it that will be undone.
    pub engaged: bool,
    /// Of a client: what those before it have done.
    before: Sums,
}

/// All of them.
pub struct Field<'w> {
    pub world: &'w World,
    pub place: &'w Place,
    pub servers: Vec<Party<'w>>,
    pub clients: Vec<Party<'w>>,
    /// By host: as `engaged` of a party.
    pub agents_engaged: [bool; 2],
    script: PathBuf,
    stop: PathBuf,
    seed: u64,
    next: u64,
}

impl<'w> Field<'w> {
    pub fn new(world: &'w World, place: &'w Place, seed: u64) -> Self {
        let script = world.file("client.py", include_str!("../../programs/chaos/client.py"));
        servers::prepare(world, world.host(SERVERS), &script);
        let party = |kind, host| Party { kind, host, program: None, engaged: false, before: Sums::default() };
        let mut field = Self {
            world,
            place,
            servers: (0..KINDS.len()).map(|kind| party(kind, SERVERS)).collect(),
            clients: (0..KINDS.len()).flat_map(|kind| [party(kind, 0), party(kind, SERVERS)]).collect(),
            agents_engaged: [false; 2],
            script,
            stop: world.path("stop-clients"),
            seed: seed * 1_000_000,
            next: 0,
        };
        (0..KINDS.len()).for_each(|kind| field.start_server(kind));
        (0..field.clients.len()).for_each(|client| field.start_client(client));
        field
    }

    pub fn server_host(&self) -> Host<'w> {
        self.world.host(SERVERS)
    }

    pub fn start_server(&mut self, kind: usize) {
        let command = servers::command(self.world, self.server_host(), KINDS[kind].0, &self.script);
        self.servers[kind].program = Some(self.server_host().start(KINDS[kind].0, command));
    }

    pub fn start_client(&mut self, client: usize) {
        let party = &self.clients[client];
        let (host, (name, port)) = (self.world.host(party.host), KINDS[party.kind]);
        self.next += 1;
        let words = [
            self.script.display().to_string(),
            name.to_owned(),
            self.server_host().ip(),
            port.to_string(),
            (self.seed + self.next).to_string(),
            self.stop.display().to_string(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = host.command(find("python3", "python3"), &words);
        if name == "postgres" {
            // Streams of a host leave the kernel between processes of one user.
            servers::as_postgres(&mut command);
        }
        // What the allocator holds in pieces too small for the next answer depends on what recv gives, and would look like growth.
        command.env("MALLOC_MMAP_THRESHOLD_", "8192");
        if party.kind % 2 == 1 {
            self.place.under_clock(&mut command);
        }
        self.clients[client].program = Some(host.start(&format!("{name}-client"), command));
    }

    /// Nobody has seen a wrong byte or hung, and nobody has ended whom nothing was done to.
    pub fn check(&mut self) {
        let world = self.world;
        for party in self.servers.iter_mut().chain(&mut self.clients) {
            let Some(program) = &mut party.program else { continue };
            let said = program.output();
            let bad =
                said.lines().rev().take(3).find(|line| line.starts_with("WRONG") || line.starts_with("HANG"));
            let name = KINDS[party.kind].0;
            if let Some(line) = bad {
                let line = line.to_owned();
                world.fail(&format!("a client of {name} on host {}: {line}", party.host));
            }
            if !party.engaged && !program.running() {
                world.fail(&format!(
                    "{name} on host {} has ended by itself\n{}",
                    party.host,
                    program.complaints()
                ));
            }
        }
    }

    /// Waits until every client has done so many operations more.
    pub fn gets_on(&mut self, operations: u64) {
        let wanted: Vec<u64> =
            self.clients.iter().map(|client| client.now().operations + operations).collect();
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            self.check();
            let late =
                self.clients.iter().zip(&wanted).find(|(client, wanted)| client.now().operations < **wanted);
            let Some((client, _)) = late else { return };
            if Instant::now() > deadline {
                let name = KINDS[client.kind].0;
                self.world.fail(&format!("a client of {name} on host {} gets no further", client.host));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Connections that were cut short so far.
    pub fn cut_short(&self) -> u64 {
        self.clients.iter().map(|client| client.now().ends).sum()
    }

    /// What those who run have complained about, the last of it.
    pub fn complaints(&self) -> String {
        let of = |party: &Party<'_>| {
            let said = party.program.as_ref().map(Program::complaints).unwrap_or_default();
            let lines: Vec<&str> = said.lines().rev().take(20).collect();
            let (name, host) = (KINDS[party.kind].0, party.host);
            lines.into_iter().rev().map(|line| format!("{name} on host {host}: {line}\n")).collect::<String>()
        };
        self.clients.iter().chain(&self.servers).map(of).collect()
    }

    /// Ends clients and then servers in good order: what was done for each kind, and over which way.
    pub fn finish(self) -> Vec<String> {
        fs::write(&self.stop, "").expect("a file");
        let mut lines = Vec::new();
        for mut client in self.clients {
            let sums = client.before;
            let way = if client.host == SERVERS { "on its host" } else { "from the other host" };
            let output = client.program.take().expect("a client").succeeds();
            self.world.check(output.ends_with("done\n"), &output);
            let Sums { operations, bytes, connections, ends } = sums + progress(&output);
            lines.push(format!(
                "{} {way}: {operations} operations, {bytes} bytes checked, {connections} connections, {ends} cut short",
                KINDS[client.kind].0
            ));
        }
        for server in self.servers {
            // Their end is not what is looked at here.
            server.program.expect("a server").kill();
        }
        servers::postgres_is_gone(self.world);
        lines
    }
}

impl Party<'_> {
    /// What it and those before it have done.
    pub fn now(&self) -> Sums {
        self.before + self.program.as_ref().map_or_else(Sums::default, |program| progress(&program.output()))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.before = self.now();
        if let Some(program) = self.program.take() {
            program.kill();
        }
    }
}

/// The last line of progress.
fn progress(output: &str) -> Sums {
    // What is behind the last end of a line is not whole yet.
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    let line = whole.lines().rev().find_map(|line| line.strip_prefix("progress "));
    let numbers = line.map(|line| line.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u64>>());
    match numbers.as_deref() {
        Some([operations, bytes, connections, ends]) => {
            Sums { operations: *operations, bytes: *bytes, connections: *connections, ends: *ends }
        }
        _ => Sums::default(),
    }
}
