//! The tests whose scene is no instance also where all others are: each with what it has that an instance has not, or must not share.

/// Program, test, reason; `*` is each test of a program.
const ALONE: &[(&str, &str, &str)] = &[
    ("audit_heads", "a_head_that_was_forgotten_and_is_put_back_changes_nothing", CHAINS),
    (
        "audit_heads",
        "many_starts_leave_a_bounded_store_and_bounded_lines_and_every_chain_of_any_age_is_missed",
        CHAINS,
    ),
    ("audit_heads", "more_heads_than_a_line_takes_are_named_over_several_starts", CHAINS),
    ("certificate_authority", "what_is_issued_is_believed_by_openssl_and_says_what_the_profile_says", PLACES),
    ("cluster", "a_node_whose_name_was_taken_uses_no_key_when_it_wakes", NAME),
    ("cluster_history", "of_an_etcd_that_was_restored_no_key_is_used_until_an_operator_has_looked", STORE),
    (
        "cluster_history",
        "of_a_postgresql_that_lost_commits_no_key_is_used_until_an_operator_has_looked",
        STORE,
    ),
    ("cluster_accept", "one_that_remembers_more_than_was_accepted_does_not_start_without_the_word", STORE),
    ("hsm_internal", "a_key_of_another_program_is_taken_over_as_it_is", ADOPTION),
    (
        "hsm_internal",
        "a_key_that_stays_is_destroyed_in_its_token_when_its_time_comes_and_an_adopted_one_is_left",
        ADOPTION,
    ),
    ("hsm_internal", "the_program_takes_a_key_over_and_makes_one_that_stays", ADOPTION),
    ("pressure", "what_a_vanished_caller_had_queued_is_dropped_and_recorded", LISTENER),
    ("rotation", "*", ROTATORS),
    ("timing", "*", TIME),
    ("tls", "d12_client_certificates_are_asked_for_and_checked", LISTENER),
    ("hsm_memory", "*", MEMORY),
];
const CHAINS: &str =
    "an instance begins the chain of an arbiter with the first request there, and not at its start";
const PLACES: &str = "the certificates of an instance do not say where lists and issuers are";
const NAME: &str = "a node has its name for its installation as well, which the test cannot cut off";
const STORE: &str = "only the scene's records are in the store that is put back, and a second node finds those of its installation at the first";
const ADOPTION: &str = "an instance takes no keys over that a token holds";
const LISTENER: &str = "what a listener counts is the installation's";
const ROTATORS: &str = "an instance has no rotators";
const TIME: &str = "times are measured, and the one beside is at work";
const MEMORY: &str = "the memory of the process is measured, and the one beside takes its own";

/// Returns why the scene of the test that runs on this thread is no instance; `None` where it is one.
pub(crate) fn reason() -> Option<&'static str> {
    let thread = std::thread::current();
    let test = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or_default();
    let file = std::env::current_exe().ok()?;
    let (program, _) = file.file_name()?.to_str()?.rsplit_once('-')?;
    let is_it = |of: &&(&str, &str, &str)| of.0 == program && (of.1 == "*" || of.1 == test);
    ALONE.iter().find(is_it).map(|(.., reason)| *reason)
}
