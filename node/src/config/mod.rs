//! Every setting of a node: one table gives the struct, the flags, the file's keys, the
//! environment variables and `config print`, so that they cannot drift apart.
//!
//! Owns: the table, and the plain `Config` that the rest of the node is given.
//! Must not: read the environment, a terminal or a home folder; the binary hands them in.
//! Order of sources, the later one wins: default, file, environment, flag.

mod check;
mod choice;
mod file;
mod load;
mod print;
mod setting;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use cocoon_ledger::liteserver::ServerAddress;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::Network;
use cocoon_protocol::units::{Millis, NanoTon, PricePerMillion, Prices, Tokens};
use multiaddr::Multiaddr;

pub use check::Conflict;
pub use choice::{
    AttesterChoice, EngineChoice, GpuAttesterChoice, LedgerChoice, LogFilter, LogFormat,
    ModelChoice, ServiceUrl, WalletAddress,
};
pub use file::FileError;
pub use load::{ConfigError, Layers, Loaded, Origin, unknown_variables};
pub use print::{print_json, print_toml};
pub use setting::{Fallback, Kind, Setting, Surroundings, VARIABLE_PREFIX};
pub use value::{Name, Raw, Secret, SettingValue, Shown, TextValue, ValueError, duration_text};

use Fallback::{Derived, Text, Unset};

/// Turns the table into [`Config`], [`SETTINGS`], and the functions that fill and show them.
macro_rules! settings {
    ($(
        $heading:literal {
            $(
                $(#[doc = $line:literal])+
                $key:ident: $type:ty = $fallback:expr $(, $part:ident: $value:expr)*;
            )+
        }
    )+) => {
        /// A node's settings, resolved and typed. Plain data: read once, handed down, never changed.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(
                $(#[doc = $line])+
                pub $key: $type,
            )+)+
        }

        /// The table: one row a setting, in the order of the help.
        pub static SETTINGS: &[Setting] = &[
            $($(
                Setting {
                    $($part: $value,)*
                    ..Setting::row(
                        stringify!($key),
                        $heading,
                        &[$($line),+],
                        $fallback,
                        <$type as SettingValue>::KIND,
                    )
                },
            )+)+
        ];

        impl Config {
            /// Reads every setting from `layers`, without checking one against another.
            fn read(layers: &load::Resolver<'_>) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($( $key: layers.read(stringify!($key))?, )+)+
                })
            }

            /// Every setting's value as it is shown, in the order of [`SETTINGS`].
            pub fn shown(&self) -> Vec<Shown> {
                vec![$($( self.$key.show(), )+)+]
            }
        }
    };
}

settings! {
    "Node" {
        /// Folder for the node's key, store, models and control socket.
        ///
        /// Created with mode 0700. One running node per folder.
        data_dir: PathBuf = Derived("the user's data folder + /cocoon", |surroundings| {
            surroundings.data_home.as_ref().map(|home| format!("{home}/cocoon"))
        }), placeholder: "DIR", everywhere: true;

        /// Serve a model to others and earn TON.
        provide: bool = Text("false");

        /// Offer an OpenAI-compatible endpoint on this machine, served by others.
        ///
        /// With neither this nor `--provide` the node is a bare peer: an entry point and relay.
        consume: bool = Text("false");

        /// TON network that money is on: devnet, testnet or mainnet.
        ///
        /// A devnet is a chain run by one's own nodes, with play money; the safe default.
        network: Network = Text("devnet"), placeholder: "NETWORK";

        /// How long running jobs may take to finish after a first SIGINT or SIGTERM.
        ///
        /// Half a minute lets an ordinary answer end; a second signal stops at once.
        shutdown_grace: Millis = Text("30 s"), placeholder: "TIME";
    }
    "Keys" {
        /// File whose first line is the keystore's passphrase; `COCOON_PASSPHRASE` is the other way.
        ///
        /// Without either, a keystore that has a passphrase asks for it at the terminal. A new one
        /// gets the passphrase that is given here, and otherwise uses the key file.
        passphrase_file: Option<PathBuf> = Unset, placeholder: "FILE", everywhere: true;

        /// File with the key of a keystore that has no passphrase; made when it is not there.
        ///
        /// Outside the data folder, so that a copy of the folder alone opens nothing. Whoever reads
        /// all of the user's files has both; a passphrase keeps them out while the node is down.
        key_file: Option<PathBuf> = Derived("the user's configuration folder + /cocoon/keystore.key", |surroundings| {
            surroundings.config_home.as_ref().map(|home| format!("{home}/cocoon/keystore.key"))
        }), placeholder: "FILE", everywhere: true;

        /// Make a new keystore without any protection; for throw-away devnets.
        clear_keystore: bool = Text("false");

        /// The keystore's passphrase itself. As a flag other users of the machine can see it.
        passphrase: Option<Secret> = Unset, placeholder: "TEXT", secret: true, hidden: true;
    }
    "Peers" {
        /// Addresses to listen on for peers; repeat the flag for several.
        ///
        /// QUIC first, TCP for networks that drop UDP. Port 0 takes a free port, so that several
        /// nodes start on one machine; an entry point sets ports of its own.
        listen: Vec<Multiaddr> = Text("/ip4/0.0.0.0/udp/0/quic-v1,/ip4/0.0.0.0/tcp/0"),
            placeholder: "MULTIADDR";

        /// Addresses of peers to join the network through; repeat the flag for several.
        entry_points: Vec<Multiaddr> = Text(""), placeholder: "MULTIADDR";

        /// Where this node is, as a hint for latency: any short word, such as `eu-west`.
        region: Option<Name> = Unset, placeholder: "NAME";
    }
    "Consumer" {
        /// Address of the OpenAI-compatible endpoint.
        ///
        /// Loopback by default; beyond it, an API key must be set.
        gateway_listen: SocketAddr = Text("127.0.0.1:10000"), placeholder: "ADDRESS:PORT";

        /// Key that clients of the endpoint must send; none by default.
        ///
        /// Flags are visible to other users of the machine: prefer the file or the environment.
        api_key: Option<Secret> = Unset, placeholder: "KEY", secret: true;

        /// TOML file of API keys, each with a name, a hash and its own caps.
        ///
        /// `cocoon-node key new NAME` draws a key and prints its entry.
        api_keys: Option<PathBuf> = Unset, placeholder: "FILE";

        /// Lowest protection that a prompt may be sent under: open, attested or confidential.
        ///
        /// An `open` provider can read every prompt, so that has to be asked for.
        minimum_tier: Tier = Text("attested"), placeholder: "TIER";

        /// File with the attestation policy: which hardware and images count as trusted.
        ///
        /// Without one no evidence is accepted, and only `open` providers can serve.
        policy: Option<PathBuf> = Unset, placeholder: "FILE";

        /// Most that one request may cost; dearer offers are refused.
        ///
        /// About 800,000 completion tokens at this node's own default price.
        max_cost: NanoTon = Text("0.05 TON"), placeholder: "AMOUNT";

        /// Most that all requests of a day (UTC) may cost together; no cap by default.
        ///
        /// What running requests may still cost is set aside. Keys have caps of their own.
        max_spend: Option<NanoTon> = Unset, placeholder: "AMOUNT";

        /// Most that a million tokens may cost, prompt and completion alike; no cap by default.
        max_price: Option<PricePerMillion> = Unset, placeholder: "AMOUNT",
            unit: "per million tokens";

        /// Deposit when the vault is opened.
        ///
        /// Five allocations; what is not spent can be withdrawn.
        vault_deposit: NanoTon = Text("0.5 TON"), placeholder: "AMOUNT";

        /// Cold address to which withdrawals from the vault go, and nowhere else; the wallet by default.
        ///
        /// Part of the vault's address: with another owner the node uses another vault.
        owner: Option<WalletAddress> = Unset, placeholder: "ADDRESS";

        /// Most that may be allocated to providers in one UTC day; no cap by default.
        ///
        /// Bounds what a thief of the hot key can give to himself. Part of the vault's address.
        daily_cap: Option<NanoTon> = Unset, placeholder: "AMOUNT";

        /// Part of the vault that is reserved for one provider at a time.
        ///
        /// Large enough for thousands of answers between two transactions on the ledger.
        allocation: NanoTon = Text("0.1 TON"), placeholder: "AMOUNT";

        /// When free coins run short, an allocation that nobody used for this long is given back.
        ///
        /// The one that was unused longest, one at a time; its provider may still settle what it earned.
        idle_release: Millis = Text("30 min"), placeholder: "TIME";

        /// Time that a provider has to settle after the consumer alone releases an allocation.
        ///
        /// Six hours outlast an ordinary outage; on a devnet nobody wants to wait.
        release_delay: Millis = Derived("6 h; 60 s on a devnet", |surroundings| {
            let devnet = surroundings.network == Network::Devnet;
            Some(if devnet { "60 s" } else { "6 h" }.to_owned())
        }), placeholder: "TIME";
    }
    "Provider" {
        /// Model to serve: a name from `models list` or a `blake3:` hash.
        model: Option<ModelChoice> = Unset, placeholder: "MODEL";

        /// Name that offers give to the model; its name in the catalogue by default.
        model_name: Option<Name> = Unset, placeholder: "NAME";

        /// What runs the model: llama (llama.cpp in a child process) or echo (test text).
        engine: EngineChoice = Text("llama"), placeholder: "ENGINE";

        /// Threads for inference on the CPU; all but one by default.
        ///
        /// One is left for the network, so that tokens leave while others are computed.
        engine_threads: NonZeroU16 = Derived("all but one", |surroundings| {
            Some(surroundings.threads.saturating_sub(1).max(1).to_string())
        }), placeholder: "COUNT", unit: "threads";

        /// Jobs that are computed at the same time; more are refused as busy.
        ///
        /// Eight fill a batch on a small machine without starving each of them.
        engine_slots: NonZeroU16 = Text("8"), placeholder: "COUNT", unit: "jobs";

        /// Context of one job, prompt and completion together.
        ///
        /// Long enough for a dialogue; memory for the context grows with it and with the slots.
        context_tokens: Tokens = Text("4096"), placeholder: "COUNT", unit: "tokens";

        /// Price of a million prompt tokens.
        ///
        /// Of the order of what hosted endpoints ask for small open models.
        prompt_price: PricePerMillion = Text("0.02 TON"), placeholder: "AMOUNT",
            unit: "per million tokens";

        /// Price of a million completion tokens.
        ///
        /// Three times the prompt's: decoding one token costs a whole pass over the weights.
        completion_price: PricePerMillion = Text("0.06 TON"), placeholder: "AMOUNT",
            unit: "per million tokens";

        /// Lowest price of a million completion tokens, to which prices fall while this node idles.
        ///
        /// With this or `--price-maximum` prices follow how busy the node is: still at 60 % of its
        /// places, at most 5 % a minute. The prompt's price moves in proportion. A bound that is not
        /// set is the price itself.
        price_minimum: Option<PricePerMillion> = Unset, placeholder: "AMOUNT",
            unit: "per million tokens";

        /// Highest price of a million completion tokens, to which prices rise while this node is busy.
        price_maximum: Option<PricePerMillion> = Unset, placeholder: "AMOUNT",
            unit: "per million tokens";

        /// Evidence to offer: auto (the machine's TEE if it has one), tdx, snp, open, simulated, or simulated-snp.
        ///
        /// Asked for by name, a TEE that cannot be used stops the start; `auto` then serves as `open`.
        /// A consumer shows the same to providers that demand attested consumers.
        attester: AttesterChoice = Text("auto"), placeholder: "KIND";

        /// Evidence of GPUs beside the TEE's: auto (those that can prove themselves), nvidia, none, or simulated.
        ///
        /// With it the node offers tier `confidential`. Asked for by name, GPUs that cannot prove
        /// themselves stop the start; `auto` then serves as `attested`. Without a TEE GPUs prove
        /// nothing and are not asked.
        gpu_attester: GpuAttesterChoice = Text("auto"), placeholder: "KIND";

        /// How many GPUs a simulation has.
        simulated_gpus: NonZeroU16 = Text("1"), placeholder: "COUNT", unit: "GPUs", hidden: true;

        /// Service with what consumers need to verify TDX: Intel's, or a cache of it (PCCS).
        ///
        /// Fetched here and sent along with the evidence, so that no consumer asks Intel.
        intel_pcs: ServiceUrl = Text("https://api.trustedservices.intel.com"), placeholder: "URL";

        /// Service with what consumers need to verify SEV-SNP: AMD's, or a cache of it.
        amd_kds: ServiceUrl = Text("https://kdsintf.amd.com"), placeholder: "URL";

        /// File with what consumers need to verify this machine's evidence, instead of a service.
        ///
        /// For machines without a way out; somebody else keeps it fresh. DCAP collateral as JSON on TDX.
        endorsements: Option<PathBuf> = Unset, placeholder: "FILE";

        /// File with a policy that consumers must satisfy: only attested consumers are served.
        ///
        /// Same form as the consumer's `policy`. Without one anybody is served.
        consumer_policy: Option<PathBuf> = Unset, placeholder: "FILE";

        /// Unsettled earnings on one channel from which they are settled on the ledger.
        ///
        /// Two orders of magnitude above what a settlement costs (about 0.001 TON).
        settle_threshold: NanoTon = Text("0.12 TON"), placeholder: "AMOUNT";

        /// File in which the best vouchers are kept for watchtowers (`cocoon-node watch`).
        ///
        /// Written again whenever one comes. Whoever has it can make consumers' vaults pay this node,
        /// and nothing else: a copy on another machine settles when this one cannot.
        voucher_export: Option<PathBuf> = Unset, placeholder: "FILE";

        /// Pause before each token of the echo engine.
        echo_delay: Millis = Text("0 ms"), placeholder: "TIME", hidden: true;
    }
    "Ledger" {
        /// Where the TON ledger is: embedded, liteservers, or the URL of a toncenter-shaped server.
        ///
        /// Embedded is a chain of this node's own, enough for one machine and for devnets.
        /// Liteservers prove what they say; a URL is believed, and what it says is marked so.
        ledger: LedgerChoice = Derived("embedded on a devnet, else liteservers", |surroundings| {
            let devnet = surroundings.network == Network::Devnet;
            Some(if devnet { "embedded" } else { "liteservers" }.to_owned())
        }), placeholder: "LEDGER";

        /// TON's global configuration file, which names liteservers.
        ///
        /// Published at `ton.org/global-config.json` and `ton.org/testnet-global.config.json`.
        ton_config: Option<PathBuf> = Unset, placeholder: "FILE";

        /// Liteservers to ask, beside those in `--ton-config`; repeat the flag for several.
        liteservers: Vec<ServerAddress> = Text(""), placeholder: "IP:PORT:KEY";

        /// Liteservers of different operators that must name a block before it is believed.
        ///
        /// More than half of them by default; at least two where money is real.
        liteserver_quorum: Option<NonZeroU16> = Unset, placeholder: "COUNT";

        /// Serve consumers whose vault was read from a ledger that proves nothing.
        ///
        /// A devnet's server is the chain itself: there is nothing else to prove it against, and
        /// its coins are worth nothing. Elsewhere a URL's operator could invent vaults.
        accept_unverified_ledger: bool = Derived("true on a devnet, else false", |surroundings| {
            Some((surroundings.network == Network::Devnet).to_string())
        });

        /// Registry whose network fee new vaults copy; without one there is no fee.
        ///
        /// A vault keeps the fee that it was made with. A provider accepts at most the registry's.
        registry: Option<WalletAddress> = Unset, placeholder: "ADDRESS";

        /// Address to serve the embedded ledger on, for the other nodes of a devnet.
        ledger_listen: Option<SocketAddr> = Unset, placeholder: "ADDRESS:PORT";

        /// Address to serve the embedded ledger on as a liteserver, with proofs.
        ///
        /// Its key is kept in the data folder; `liteserver.json` beside it is a global
        /// configuration file for others.
        ledger_liteserver_listen: Option<SocketAddr> = Unset, placeholder: "ADDRESS:PORT";
    }
    "Log" {
        /// Which log lines are written, to standard error: `info`, `info,cocoon_node=debug`, …
        log: LogFilter = Text("info"), placeholder: "FILTER", also_variable: Some("RUST_LOG"),
            everywhere: true;

        /// How log lines look: text or json.
        log_format: LogFormat = Text("text"), placeholder: "FORMAT";
    }
}

impl Config {
    /// What this node charges as a provider.
    pub const fn prices(&self) -> Prices {
        Prices { prompt: self.prompt_price, completion: self.completion_price }
    }
}

/// The row of the table with this key.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

#[cfg(test)]
pub(crate) mod tests;
