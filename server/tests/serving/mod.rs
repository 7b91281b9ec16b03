//! `mixfeed serve` as a process of its own.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The program, serving.
pub struct Serving {
    pub child: Child,
    pub endpoint: String,
    pub http: String,
}

impl Serving {
    /// Starts `mixfeed serve` on free ports and waits for the line that names them.
    pub fn start(config: &str) -> Serving {
        Serving::start_with(config, "127.0.0.1:0", &[])
    }

    /// As [`Serving::start`], on an address of one's own choice.
    pub fn at(config: &str, listen: &str) -> Serving {
        Serving::start_with(config, listen, &[])
    }

    /// As [`Serving::at`], with variables of the environment.
    pub fn start_with(config: &str, listen: &str, variables: &[(&str, &str)]) -> Serving {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mixfeed"))
            .args(["--log-format", "json", "serve", "--config", config])
            .args(["--listen", listen, "--http", "127.0.0.1:0"])
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut endpoint, mut http) = (String::new(), String::new());
        for line in lines.map(Result::unwrap) {
            let log: serde_json::Value = serde_json::from_str(&line).unwrap();
            let message = log["fields"]["message"].as_str().unwrap().to_owned();
            if let Some(address) = message.strip_prefix("listening on ") {
                endpoint = address.to_owned();
            }
            if let Some(address) = message.strip_prefix("metrics on ") {
                http = address.to_owned();
                break;
            }
        }
        assert!(!endpoint.is_empty() && !http.is_empty());
        Serving { child, endpoint, http }
    }

    /// Sends a signal and waits for the end.
    pub fn signal(&mut self, signal: &str) -> std::process::ExitStatus {
        self.tell(signal);
        self.child.wait().unwrap()
    }

    /// Sends a signal.
    pub fn tell(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already is fine
        let _ = self.child.wait();
    }
}
