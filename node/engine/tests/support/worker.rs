//! The worker process of the tests: what a node's hidden sub-command does, and nothing else.

fn main() -> std::process::ExitCode {
    cocoon_engine::llama::worker_main()
}
