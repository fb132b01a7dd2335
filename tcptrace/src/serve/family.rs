//! Metrics before they are written in one of the formats.

use std::borrow::Cow;

use super::histogram::Histogram;

/// A metric with all its series.
#[derive(Clone, Debug)]
pub struct Family<'a> {
    /// Name, without the `_total` of counters.
    pub name: &'static str,
    /// One sentence for a person.
    pub help: &'static str,
    /// What the name ends in, where that is a unit.
    pub unit: Option<&'static str>,
    /// Kind.
    pub kind: Kind,
    /// The series.
    pub samples: Vec<Sample<'a>>,
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A present figure.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One series at one moment.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// Names and values, in the order in which they are written.
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    /// Value.
    pub value: Value<'a>,
}

/// Value of a series.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Counters and gauges.
    Number(f64),
    /// Histograms.
    Histogram(&'a Histogram),
}

impl<'a> Family<'a> {
    /// A counter; the name is given without `_total`.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, unit: None, kind: Kind::Counter, samples: Vec::new() }
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Gauge, ..Self::counter(name, help) }
    }

    /// A histogram of seconds.
    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Histogram, ..Self::counter(name, help) }.unit("seconds")
    }

    /// Says in which unit the values are: the name must end in it.
    #[must_use]
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    /// Adds a series.
    pub fn push(&mut self, labels: Vec<(&'static str, Cow<'a, str>)>, value: Value<'a>) {
        self.samples.push(Sample { labels, value });
    }

    /// Adds a series with a number.
    pub fn number(&mut self, labels: &[(&'static str, &'a str)], value: f64) {
        let labels = labels.iter().map(|&(name, value)| (name, Cow::Borrowed(value))).collect();
        self.push(labels, Value::Number(value));
    }

    /// A family of one series without labels.
    #[must_use]
    pub fn single(mut self, value: f64) -> Self {
        self.number(&[], value);
        self
    }
}
