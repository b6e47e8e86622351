//! Streams to another host, looked at from outside: `convoy dump` and `convoy trace` of the program, not of the agents.

use std::fs;
use std::process::Command;

use convoy_tests::hosts::{Plan, World};

use crate::common::{TCP, convoy, job};

/// The `convoy` command on the first host.
fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.host(0).command(world.path("convoy"), arguments);
    command.env_remove("LD_PRELOAD");
    command
}

#[test]
fn streams_to_another_host_are_seen() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let options = "--bytes 0 --pace 300 --io poll";
        let mut pair = job("echo", 6, options).start(world.host(1), world.host(0));
        pair.connected();
        pair.accelerated();
        pair.go();
        pair.goes_on(2);
        let pid = pair.client.pid().to_string();

        let output = command(world, &["dump", "--json", &pid]).output().expect("convoy dump");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let channels = said["processes"][0]["channels"].as_array().expect("channels");
        let agent = channels.iter().find(|channel| channel["agent"] == true).expect("a channel to the agent");
        let streams = agent["streams"].as_array().expect("streams");
        assert_eq!(streams.len(), 6, "{agent}");
        let address = world.host(0).ip();
        for stream in streams {
            assert!(stream["local"].as_str().is_some_and(|local| local.starts_with(&address)), "{stream}");
            assert!(stream["sending"]["sent"].as_u64() > Some(0), "{stream}");
        }

        let (out, err) = (world.path("trace.out"), world.path("trace.err"));
        let mut tracer = command(world, &["trace", &pid]);
        tracer.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let mut tracer = tracer.spawn().expect("convoy trace");
        let said = || fs::read_to_string(&out).unwrap() + &fs::read_to_string(&err).unwrap();
        world.eventually("frames to and fro", || {
            said().contains(": sent data") && said().contains(": received data")
        });
        world.host(1).kill_agent();
        world.eventually("the way back", || {
            said().contains("back to the kernel: the way to the other host is gone")
        });
        let ended = tracer.kill().and_then(|()| tracer.wait());
        assert!(ended.is_ok() && said().lines().all(|line| line.contains(&address)), "{}", said());
        pair.goes_on(2);
        pair.stop();
        pair.succeeds();
    });
}
