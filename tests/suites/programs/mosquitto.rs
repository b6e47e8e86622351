//! The MQTT broker mosquitto with its own clients and with paho, in all qualities of service.

use std::fmt::Write as _;
use std::fs::{self, File};

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

use crate::scripts::{python_with, script};

fn broker(arena: &Arena, port: u16) -> Service<'_> {
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\npersistence false\nlog_type subscribe\n"
    );
    let file = arena.file("mosquitto.conf", config);
    let command = arena.command(find("mosquitto", "mosquitto"), &["-c", file.to_str().unwrap()]);
    let broker = arena.start("mosquitto", command);
    arena.listening(port);
    broker
}

/// Lines of many lengths.
fn lines() -> String {
    let mut text = String::new();
    for number in 0..2000 {
        writeln!(text, "line {number} {}", "m".repeat(number * number % 3001)).unwrap();
    }
    text
}

/// Every line is one message; each of several subscribers must write them all, in order.
fn own_clients(arena: &Arena) -> String {
    let number = free_port();
    let port = number.to_string();
    let broker = broker(arena, number);
    let text = lines();
    let file = arena.file("lines", &text);
    for quality in ["0", "1", "2"] {
        let place = ["-h", "127.0.0.1", "-p", &port, "-V", "mqttv311", "-q", quality, "-t", "lines"];
        let names: Vec<String> = (0..6).map(|number| format!("sub-{quality}-{number}")).collect();
        let subscribers: Vec<_> = names
            .iter()
            .map(|name| {
                let program = find("mosquitto_sub", "mosquitto-clients");
                let arguments = [&place[..], &["-i", name, "-C", "2000"]].concat();
                arena.start(name, arena.command(program, &arguments))
            })
            .collect();
        arena.eventually("subscriptions", || {
            let log = fs::read_to_string(arena.path("mosquitto.err")).unwrap_or_default();
            names.iter().all(|name| log.contains(&format!("{name} {quality} lines")))
        });
        let mut command =
            arena.command(find("mosquitto_pub", "mosquitto-clients"), &[&place[..], &["-l"]].concat());
        command.stdin(File::open(&file).unwrap());
        arena.run(command);
        for (subscriber, name) in subscribers.into_iter().zip(&names) {
            assert!(subscriber.ended().success());
            let said = fs::read_to_string(arena.path(format!("{name}.out"))).unwrap();
            assert!(said == text, "{:?}: {name}", arena.mode());
        }
    }
    broker.end(libc::SIGTERM).to_string()
}

fn paho(arena: &Arena) -> String {
    let python = python_with(&[("paho.mqtt.client", "python3-paho-mqtt")]);
    let number = free_port();
    let broker = broker(arena, number);
    let (script, port) = (script("python/mqtt_load.py"), number.to_string());
    let said = arena.run(arena.command(python, &[&script, &port])).stdout;
    format!("{said}{}", broker.end(libc::SIGTERM))
}

#[test]
fn mosquitto_own_clients() {
    both(true, own_clients);
}

#[test]
fn mosquitto_paho() {
    both(true, paho);
}
