//! .NET, as opentelemetry-operator injects it: the runtime's profiler and startup hook are the agent.

use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::Language;
use super::agent::{self, Agent, Delivery, Preparation};
use super::agent_files::{AgentFiles, AgentSection};
use super::annotations;
use super::environment::{Environment, literal};
use super::outcome::{Reason, Refusal};
use super::validity::Requests;

const HOME_VARIABLE: &str = "OTEL_DOTNET_AUTO_HOME";
const STARTUP_HOOKS_VARIABLE: &str = "DOTNET_STARTUP_HOOKS";
const ADDITIONAL_DEPS_VARIABLE: &str = "DOTNET_ADDITIONAL_DEPS";
const SHARED_STORE_VARIABLE: &str = "DOTNET_SHARED_STORE";
/// Lists of paths, to which ours are added.
const LISTS: [&str; 3] = [STARTUP_HOOKS_VARIABLE, ADDITIONAL_DEPS_VARIABLE, SHARED_STORE_VARIABLE];

const RUNTIME_KEY: &str = "otel-dotnet-auto-runtime";
/// The class id by which the runtime knows OpenTelemetry's profiler.
const PROFILER: &str = "{918728DD-259F-4A6A-AC2B-B85E1B658318}";
/// Where the image has the agent, below its root.
const SOURCE: &str = "autoinstrumentation";
const REQUESTS_DEFAULT: Requests = Requests { cpu: "50m", memory: "128Mi" };

#[derive(Debug)]
pub(super) struct DotNetAgent<'a> {
    section: &'a AgentSection,
    files: AgentFiles,
    /// The folder of native libraries for the pod's C library, or the annotation that names no such library.
    libraries: Result<&'static str, &'a str>,
}

impl<'a> DotNetAgent<'a> {
    pub(super) fn new(preparation: &Preparation<'a>) -> Result<Self, Refusal> {
        let section = &preparation.spec.dotnet;
        let libraries = match annotations::option(&preparation.request, RUNTIME_KEY) {
            "" | "linux-x64" => Ok("linux"),
            "linux-musl-x64" => Ok("linux-musl"),
            other => Err(other),
        };
        let files = AgentFiles::new(Language::DotNet, section.files(), &REQUESTS_DEFAULT, preparation)?;
        Ok(Self { section, files, libraries })
    }
}

impl Agent for DotNetAgent<'_> {
    fn env(&self) -> &[EnvVar] {
        &self.section.env
    }

    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal> {
        for variable in LISTS {
            agent::check_extensible(Language::DotNet, &container.name, env, variable)?;
        }
        if env.has(HOME_VARIABLE) {
            let name = &container.name;
            return Err(Refusal::new(
                Reason::AgentPresent,
                format!("dotnet: container {name} sets {HOME_VARIABLE}, so it has an agent already; remove one"),
            ));
        }
        if self.section.env.iter().any(|var| var.name == HOME_VARIABLE) {
            return Err(Refusal::new(
                Reason::InstrumentationInvalid,
                format!("dotnet: the Instrumentation's spec.dotnet.env sets {HOME_VARIABLE}; remove it there"),
            ));
        }
        if let Err(runtime) = self.libraries {
            let key = annotations::option_key(RUNTIME_KEY);
            return Err(Refusal::new(
                Reason::PlatformUnknown,
                format!("dotnet: annotation {key} is \"{runtime}\"; it must be linux-x64 or linux-musl-x64"),
            ));
        }
        self.files.mount(container, self.files.directory(), Some(SOURCE))
    }

    fn load(&self, _container: &str, env: &mut Environment) -> Vec<String> {
        let home = self.files.directory();
        let libraries = self.libraries.unwrap_or_default();
        let mut notes = Vec::new();
        let mut add = |env: &mut Environment, name: &str, ours: String| {
            let extended = env.change_value(name, |existing| match existing {
                Some(existing) => format!("{existing}:{ours}"),
                None => ours.clone(),
            });
            notes.extend(agent::note_unless(extended, Language::DotNet, name, &format!(" {ours}")));
        };
        env.push_absent(literal("CORECLR_ENABLE_PROFILING", "1"));
        env.push_absent(literal("CORECLR_PROFILER", PROFILER));
        let profiler_path = format!("{home}/{libraries}/OpenTelemetry.AutoInstrumentation.Native.so");
        env.push_absent(literal("CORECLR_PROFILER_PATH", profiler_path));
        let hook = format!("{home}/net/OpenTelemetry.AutoInstrumentation.StartupHook.dll");
        add(env, STARTUP_HOOKS_VARIABLE, hook);
        add(env, ADDITIONAL_DEPS_VARIABLE, format!("{home}/AdditionalDeps"));
        env.push_absent(literal(HOME_VARIABLE, home));
        add(env, SHARED_STORE_VARIABLE, format!("{home}/store"));
        notes
    }

    fn doubts(&self) -> Vec<String> {
        self.files.doubts()
    }

    fn delivery(&self) -> Option<Delivery> {
        Some(self.files.delivery(&["cp", "-r", &format!("/{SOURCE}/."), self.files.directory()]))
    }
}
