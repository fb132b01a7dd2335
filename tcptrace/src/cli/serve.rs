//! `tcptrace serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{FilterArgs, TracingArgs, values};

/// Options of `serve`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace serve                                    http://127.0.0.1:9435/metrics, for this host only
  tcptrace serve --listen 0.0.0.0:9435 --web-config web.yml
                                                    for the network, with TLS and passwords
  curl -s localhost:9435/leaks                      who keeps sockets in CLOSE_WAIT

Pages: /metrics (text, OpenMetrics, protobuf with native histograms), /healthz, /leaks, /report.

Each state is a set of series; --state TIME_WAIT,CLOSE_WAIT,FIN_WAIT2 keeps them few.")]
pub struct ServeArgs {
    /// Address to listen on; may be given several times. Whoever reaches it reads names of processes.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9435", help_heading = "Server")]
    pub listen: Vec<SocketAddr>,

    /// TLS and users, as in the web configuration file of other Prometheus exporters. Read again when it, or a
    /// certificate that it names, changes.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub web_config: Option<PathBuf>,

    /// Answer only requests with the token in this file (`Authorization: Bearer …`).
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub bearer_token_file: Option<PathBuf>,

    /// Process names, units and containers kept apart in each metric; the rest is counted under `other`.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=10_000),
          default_value = "200", help_heading = "Server")]
    pub max_series: u16,

    /// Look up the holders of sockets at most this often; only while something scrapes.
    #[arg(long, value_name = "TIME", value_parser = values::interval, default_value = "15s",
          help_heading = "Server")]
    pub inventory_interval: Duration,

    /// /leaks shows sockets that have been in CLOSE_WAIT for this long.
    #[arg(long, value_name = "TIME", value_parser = values::min_age, default_value = "10s",
          help_heading = "Server")]
    pub min_age: Duration,

    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Tracing.
    #[command(flatten)]
    pub tracing: TracingArgs,
}
