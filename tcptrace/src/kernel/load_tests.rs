use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use tcptrace_common::Filter;

use super::super::offsets::Layout;
use super::super::privileges::{Host, Release};
use super::super::{symbols, tracepoints};
use super::*;

/// True where programs can be loaded at all; says so where not.
fn privileged() -> bool {
    let missing = Host::look().missing(true);
    if !missing.is_empty() {
        eprintln!("skipped: {}", StartError::Missing(missing));
        return false;
    }
    true
}

fn config() -> Config {
    let layout = Layout::of_running_kernel().unwrap();
    Config {
        tw_timer_handler: symbols::tw_timer_handler().unwrap(),
        wakeup_bytes: 4096,
        thread_size: layout.thread_size.into(),
        takeover_jiffies: 500,
        offsets: layout.offsets,
        // A namespace that does not exist: nothing of the host's is recorded.
        filter: Filter { netns: 1, ..Filter::ALL },
        stacks: 0,
    }
}

const PLAN: Plan = Plan { ring_bytes: 4096, timers: true, typed: None, eof: true, stacks: false };

/// With a loader of its own.
fn load(object: &[u8], config: &Config, plan: &Plan) -> Result<Loaded, StartError> {
    super::load(&mut Loader::begin().ready(), object, config, plan)
}

/// The object with the first instruction of `program` replaced by `r0 = r9`, which the verifier rejects because
/// r9 holds nothing yet.
fn with_broken(program: &str) -> Vec<u8> {
    const R0_FROM_R9: [u8; 8] = [0xbf, 0x90, 0, 0, 0, 0, 0, 0];
    let file = object::File::parse(OBJECT).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(program)).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    let at = usize::try_from(section.file_range().unwrap().0 + symbol.address()).unwrap();
    let mut bytes = OBJECT.to_vec();
    bytes[at..at + R0_FROM_R9.len()].copy_from_slice(&R0_FROM_R9);
    bytes
}

#[test]
fn a_rejected_program_comes_with_the_end_of_the_log() {
    if !privileged() {
        return;
    }
    let Err(error) = load(&with_broken("timer_cancel"), &config(), &PLAN) else { panic!("accepted") };
    let StartError::Rejected { program, log_end, .. } = &error else { panic!("{error}") };
    assert_eq!(program, "timer_cancel");
    assert!(log_end.contains("R9 !read_ok"), "{error}");
    assert!(error.advice().is_some());
}

#[test]
fn an_optional_program_that_is_rejected_costs_only_itself() {
    if !privileged() {
        return;
    }
    let loaded =
        load(&with_broken("sock_recv_length"), &config(), &PLAN).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.programs, ["timer_start", "timer_cancel", "timer_expire_entry", "inet_sock_set_state"]);
    assert_eq!(loaded.skipped.len(), 1);
    assert_eq!(loaded.skipped[0].name, "sock_recv_length");
    assert_eq!(loaded.skipped[0].why, "this kernel's verifier rejects it: R9 !read_ok");
}

#[test]
fn where_a_typed_program_fails_plain_ones_stand_in_for_all() {
    if !privileged() {
        return;
    }
    let plan = Plan { typed: Some(Layout::of_running_kernel().unwrap().tracepoints), ..PLAN };
    let loaded =
        load(&with_broken("typed_timer_cancel"), &config(), &plan).unwrap_or_else(|error| panic!("{error}"));
    let plain = ["timer_start", "timer_cancel", "timer_expire_entry", "inet_sock_set_state"];
    assert!(loaded.programs.starts_with(&plain), "{:?}", loaded.programs);
}

#[test]
fn typed_programs_are_loaded_where_the_kernel_takes_them() {
    for hook in TYPED {
        assert!(tracepoints::NAMES.contains(&hook.tracepoint), "{}", hook.tracepoint);
    }
    if !privileged() || Host::look().older_than(Release { major: 5, minor: 15 }) {
        return;
    }
    let plan = Plan { typed: Some(Layout::of_running_kernel().unwrap().tracepoints), ..PLAN };
    let loaded = load(OBJECT, &config(), &plan).unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.programs.contains(&"typed_set_state"), "{:?}", loaded.programs);
}

#[test]
fn an_object_without_types_of_its_own_is_loaded() {
    if !privileged() {
        return;
    }
    let object = without_types(OBJECT);
    assert!(object::File::parse(&*object).unwrap().section_by_name(".BTF").is_none());
    let loaded = load(&object, &config(), &PLAN).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.programs.len(), 5, "{:?}", loaded.programs);
}

#[test]
fn where_the_stack_program_fails_the_plain_one_stands_in() {
    if !privileged() {
        return;
    }
    let plan = Plan { stacks: true, ..PLAN };
    let config = Config { stacks: 1, ..config() };
    let loaded = load(&with_broken("sock_recv_length_stack"), &config, &plan)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.programs.contains(&"sock_recv_length"), "{:?}", loaded.programs);
    assert!(loaded.programs.contains(&"connect_stack"), "{:?}", loaded.programs);
    assert_eq!(loaded.skipped.len(), 1);
    assert!(loaded.stacks.is_some());
    let whole = load(OBJECT, &config, &plan).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        whole.programs.contains(&"sock_recv_length_stack") && !whole.programs.contains(&"sock_recv_length")
    );
    assert_eq!(whole.skipped, []);
}

#[test]
fn only_what_is_asked_for_is_loaded() {
    if !privileged() {
        return;
    }
    let plan = Plan { timers: false, eof: false, ..PLAN };
    let loaded = load(OBJECT, &config(), &plan).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.programs, ["inet_sock_set_state"]);
    assert!(loaded.stacks.is_none());
}

#[test]
fn without_capabilities_the_kernel_refuses_and_says_so() {
    if !privileged() {
        return;
    }
    let config = config();
    // Capabilities belong to a thread.
    std::thread::spawn(move || {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        let Err(error) = load(OBJECT, &config, &PLAN) else { panic!("accepted") };
        assert!(matches!(error, StartError::Map { .. } | StartError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("not permitted"), "{error}");
        assert!(error.advice().is_some());
    })
    .join()
    .unwrap();
}

#[test]
fn sizes_and_objects_that_cannot_be_are_refused() {
    let Err(error) = load(OBJECT, &zeroed(), &Plan { ring_bytes: 100, ..PLAN }) else { panic!("accepted") };
    assert!(matches!(error, StartError::RingSize(100)), "{error}");
    let Err(error) = load(OBJECT, &zeroed(), &Plan { ring_bytes: u32::MAX, ..PLAN }) else {
        panic!("accepted")
    };
    assert!(matches!(error, StartError::RingSize(u32::MAX)), "{error}");
    for object in [&b""[..], b"\x7fELF", b"not an object at all, but long enough to look at"] {
        let Err(error) = load(object, &zeroed(), &PLAN) else { panic!("accepted") };
        assert!(matches!(error, StartError::Object(_)), "{error}");
    }
}

fn zeroed() -> Config {
    Config {
        tw_timer_handler: 0,
        wakeup_bytes: 0,
        thread_size: 0,
        takeover_jiffies: 0,
        offsets: tcptrace_common::Offsets::default(),
        filter: Filter::ALL,
        stacks: 0,
    }
}
