//! Which format a scraper wants, by its `Accept` header.

use super::text::Dialect;

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One of the text formats.
    Text(Dialect),
    /// Length-delimited protobuf.
    Protobuf,
}

impl Format {
    /// All, the one first that is taken where several are wanted equally: the one that says most.
    pub const ALL: [Self; 3] = [Self::Protobuf, Self::Text(Dialect::OpenMetrics), Self::PLAIN];
    /// What anything understands.
    pub const PLAIN: Self = Self::Text(Dialect::Prometheus);

    /// `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text(Dialect::Prometheus) => "text/plain; version=0.0.4; charset=utf-8",
            Self::Text(Dialect::OpenMetrics) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// Takes the first of the formats that are wanted most, and [`Format::PLAIN`] where none of them is: a person
    /// with a browser wants to read something.
    #[must_use]
    pub fn wanted_by(accept: &str) -> Self {
        let mut best = (0.0, Self::PLAIN);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<(String, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
                .collect();
            let parameter =
                |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|&(_, value)| value);
            let quality = parameter("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let format = match media.as_str() {
                "application/vnd.google.protobuf"
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && parameter("encoding") == Some("delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text"
                    if matches!(parameter("version"), None | Some("0.0.1" | "1.0.0")) =>
                {
                    Self::Text(Dialect::OpenMetrics)
                }
                "text/plain" if matches!(parameter("version"), None | Some("0.0.4")) => Self::PLAIN,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scrapers_send() {
        let open = Format::Text(Dialect::OpenMetrics);
        for (accept, expected) in [
            ("", Format::PLAIN),
            ("*/*", Format::PLAIN),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::PLAIN),
            // Prometheus 2.42, without and with native histograms.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                open,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                 application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;\
                 q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::Protobuf,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
                 escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                open,
            ),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::PLAIN),
            ("application/vnd.google.protobuf", Format::PLAIN),
            ("application/openmetrics-text; q=x", Format::PLAIN),
            ("APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"", open),
        ] {
            assert_eq!(Format::wanted_by(accept), expected, "{accept}");
        }
    }
}
