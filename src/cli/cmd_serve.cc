// dspark serve: an HTTP server in the words of OpenAI's API.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/report.h"
#include "cli/spec_flags.h"
#include "server/served_model.h"
#include "server/server.h"

namespace dspark::cli {
namespace {

struct ServeFlags {
  std::vector<std::string> models;    // [NAME=]PATH
  std::vector<std::string> drafters;  // [NAME=]DRAFTER
  bool drafter_optional = false;
  SpecFlags spec;  // but for the drafter
  int threads = 0;
  std::string kv_type = "bf16";
  int parallel = 8;
  int context = 8192;
  int64_t kv_tokens = 0;
  int queue = 256;
  std::string api_key_file;
  std::vector<std::string> trusted_proxies;
  int max_body_mb = 8;
  bool quiet = false;
  bool no_page = false;
  ServerOptions server;
};

// A model or drafter with the name it was given.
struct Named {
  std::string name, value;
};

Named split_name(const std::string& text) {
  const size_t equals = text.find('=');
  std::error_code ec;
  // A file may have '=' in its name.
  const bool named = equals != std::string::npos && equals > 0 && !std::filesystem::exists(text, ec);
  if (!named) return {"", text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::string name_of_file(const std::string& path) {
  const std::filesystem::path file(path);
  const std::string stem = file.extension() == ".gguf" || file.extension() == ".safetensors"
                               ? file.stem().string()
                               : file.filename().string();
  return stem.empty() ? "model" : stem;
}

Result<std::vector<Named>> named_models(const ServeFlags& flags) {
  std::vector<Named> models;
  for (const std::string& text : flags.models) models.push_back(split_name(text));
  if (models.empty()) {
    DSPARK_ASSIGN_OR_RETURN(std::string path, default_model_path());
    models.push_back({"", std::move(path)});
  }
  for (Named& model : models) {
    if (model.name.empty()) model.name = name_of_file(model.value);
  }
  for (size_t i = 0; i < models.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (models[i].name == models[j].name) {
        return invalid_argument("--model: two models are called '" + models[i].name +
                                "'; name them with NAME=PATH");
      }
    }
  }
  return models;
}

// The drafter of every model: by name, or in the order of the models.
Result<std::vector<std::string>> drafters_of(const ServeFlags& flags, const std::vector<Named>& models) {
  std::vector<std::string> drafters(models.size(), "none");
  size_t next = 0;
  for (const std::string& text : flags.drafters) {
    const Named drafter = split_name(text);
    size_t index = next;
    if (drafter.name.empty()) {
      ++next;
    } else {
      index = 0;
      while (index < models.size() && models[index].name != drafter.name) ++index;
    }
    if (index >= models.size()) {
      return invalid_argument("--drafter: no model for '" + text + "'");
    }
    drafters[index] = drafter.value;
  }
  return drafters;
}

// A policy and a calibration are for models that draft.
SpecFlags without_drafter(SpecFlags spec) {
  spec.drafter = "none";
  spec.spec.clear();
  spec.calibration.clear();
  return spec;
}

// The engine of a model. *drafter_error: why it has no drafter, with --drafter-optional.
Result<std::unique_ptr<Engine>> make_host_engine(const ServeFlags& flags, const std::string& name,
                                                 LoadedModel& loaded, const EngineOptions& options,
                                                 const SpecFlags& spec, std::string* drafter_error) {
  EngineOptions with_drafter = options;
  Result<std::unique_ptr<Engine>> engine = make_spec_engine(loaded, with_drafter, spec);
  if (engine.ok() || !flags.drafter_optional || spec.drafter == "none") return engine;
  *drafter_error = engine.status().message();
  report_warning("model " + name + " runs without a drafter: " + *drafter_error);
  EngineOptions plain = options;
  return make_spec_engine(loaded, plain, without_drafter(spec));
}

Result<std::unique_ptr<ModelHost>> load_host(const ServeFlags& flags, const Named& model,
                                             const std::string& drafter) {
  ServedModelOptions options;
  options.name = model.name;
  options.max_sequences = flags.parallel;
  options.context = flags.context;
  options.kv_tokens = flags.kv_tokens;
  options.max_waiting = flags.queue;
  DSPARK_ASSIGN_OR_RETURN(options.kv_dtype, parse_kv_type(flags.kv_type));
  SpecFlags spec = flags.spec;
  spec.drafter = drafter;
  spec.temperature = flags.server.sampling.temperature;  // of requests that name none
  if (drafter == "none") spec.spec.clear();              // a policy is for the models that draft
  // Mistakes show before the model is loaded; a drafter that may be missing is none.
  SpecFlags checked = spec;
  if (flags.drafter_optional && drafter != "none") checked.drafter = "ngram";
  DSPARK_RETURN_IF_ERROR(check_spec(checked).status());
  ModelFlags file;
  file.model = model.value;
  file.threads = flags.threads;
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(file));
  auto owned = std::make_unique<LoadedModel>(std::move(loaded));
  DSPARK_ASSIGN_OR_RETURN(EngineOptions engine_options, served_engine_options(*owned, options));
  engine_options.always_costs = true;  // any request may bring a policy that weighs them
  std::string drafter_error;
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                          make_host_engine(flags, model.name, *owned, engine_options, spec, &drafter_error));
  const std::string kind = engine->drafter() != nullptr ? drafter_name(*engine) : std::string();
  return std::make_unique<ModelHost>(model.name, std::move(owned), std::move(engine), kind,
                                     std::move(drafter_error));
}

Status read_keys(const ServeFlags& flags, ApiKeys& keys) {
  if (!flags.api_key_file.empty()) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(flags.api_key_file.c_str(), "rb"),
                                                               std::fclose);
    if (file == nullptr) return not_found("--api-key-file: " + flags.api_key_file + " cannot be opened");
    std::string text(size_t{1} << 20, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file.get()));
    DSPARK_ASSIGN_OR_RETURN(keys, ApiKeys::parse(text, flags.api_key_file));
  }
  if (const char* key = std::getenv("DSPARK_API_KEY"); key != nullptr && *key != '\0') keys.add(key);
  return ok_status();
}

Status read_proxies(const ServeFlags& flags, TrustedProxies& proxies) {
  for (const std::string& address : flags.trusted_proxies) {
    const Status added = proxies.add(address);
    if (!added.ok()) return invalid_argument("--trusted-proxy: " + added.message());
  }
  return ok_status();
}

Result<std::unique_ptr<Server>> open_server(const ServeFlags& flags) {
  ServerOptions options = flags.server;
  DSPARK_RETURN_IF_ERROR(read_keys(flags, options.keys));
  DSPARK_RETURN_IF_ERROR(read_proxies(flags, options.proxies));
  options.version = DSPARK_VERSION;
  options.page = !flags.no_page;
  options.http.max_body_bytes = static_cast<size_t>(flags.max_body_mb) << 20;
  DSPARK_RETURN_IF_ERROR(options.http.validate());
  if (!flags.quiet) {
    options.log = [](std::string_view line) {
      std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
    };
  }
  DSPARK_ASSIGN_OR_RETURN(const std::vector<Named> models, named_models(flags));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<std::string> drafters, drafters_of(flags, models));
  std::vector<std::unique_ptr<ModelHost>> hosts;
  for (size_t i = 0; i < models.size(); ++i) {
    DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<ModelHost> host, load_host(flags, models[i], drafters[i]));
    hosts.push_back(std::move(host));
  }
  auto server = std::make_unique<Server>(std::move(options), std::move(hosts));
  DSPARK_RETURN_IF_ERROR(server->listen());
  return server;
}

int serve(const ServeFlags& flags) {
  Result<std::unique_ptr<Server>> server = open_server(flags);
  if (!server.ok()) return report_failure(server.status());
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  return (*server)->run();
}

void add_model_options(CLI::App& command, ServeFlags& flags) {
  command
      .add_option("-m,--model", flags.models,
                  "model to serve, as PATH or NAME=PATH; repeatable (default: $DSPARK_MODEL, else SmolLM2 in "
                  "models/cache)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option(
          "-d,--drafter", flags.drafters,
          "who proposes tokens: none, ngram or a path, for the models in their order, or NAME=DRAFTER")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag(
      "--drafter-optional", flags.drafter_optional,
      "go on at plain speed when a drafter is missing or does not fit (without this flag: an error)");
  add_policy_flags(command, flags.spec);
  command
      .add_option("-t,--threads", flags.threads, "threads of each model (0: one per processor it may use)")
      ->check(CLI::Range(0, 1024));
  add_kv_type_flags(command, flags.kv_type);
  command.add_option("-n,--parallel", flags.parallel, "answers written at the same time, per model")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      .add_option("-c,--ctx-size", flags.context,
                  "most tokens of one prompt with its answer (0: all the model has)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--kv-tokens", flags.kv_tokens,
                  "tokens the cache holds for all answers together (0: --parallel times --ctx-size)")
      ->check(CLI::NonNegativeNumber);
}

void add_network_options(CLI::App& command, ServeFlags& flags) {
  HttpOptions& http = flags.server.http;
  command.add_option("--host", http.host, "address to listen on")->capture_default_str();
  command.add_option("--port", http.port, "port to listen on (0: any free one; the line on stdout tells)")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command.add_option("--unix-socket", http.unix_path, "listen on this unix socket instead");
  command.add_option("--io-threads", http.io_threads, "threads for connections")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command.add_option("--max-connections", http.max_connections, "most open connections")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command.add_option("--max-body-mb", flags.max_body_mb, "largest body of a request")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      .add_option("--idle-timeout", http.idle_timeout_s,
                  "seconds a connection may stay open without a request")
      ->capture_default_str();
  command.add_option("--header-timeout", http.header_timeout_s, "seconds for the headers of a request (408)")
      ->capture_default_str();
  command.add_option("--body-timeout", http.body_timeout_s, "seconds for the body of a request (408)")
      ->capture_default_str();
  command
      .add_option("--write-timeout", http.write_timeout_s,
                  "seconds a client may take nothing of its answer (then it is cut off)")
      ->capture_default_str();
  command
      .add_option("--stream-buffer", http.max_buffered,
                  "bytes of an answer kept for a slow reader, while the model waits for it")
      ->capture_default_str();
}

void add_manner_options(CLI::App& command, ServeFlags& flags) {
  ServerOptions& server = flags.server;
  command.add_option("--queue", flags.queue, "most requests that wait, per model (more: 429)")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command.add_option("--queue-timeout", server.queue_timeout_s, "longest wait in seconds (then 429; 0: any)")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  command.add_option("--api-key-file", flags.api_key_file,
                     "file with one API key a line; $DSPARK_API_KEY adds one (default: nobody needs a key)");
  command
      .add_option("--rate-limit", server.requests_per_minute,
                  "requests a minute per key, or per address (0: any)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--trusted-proxy", flags.trusted_proxies,
                  "address of a proxy (or unix) whose X-Forwarded-For names the client; repeatable")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--cors-origin", server.cors_origin, "origin of pages that may use this server, or *");
  command.add_option("--drain-seconds", server.drain_s, "longest wait for running answers at the end")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  command.add_option("--temp", server.sampling.temperature, "temperature of requests that name none")
      ->capture_default_str();
  command.add_option("--top-k", server.sampling.top_k, "likewise")->capture_default_str();
  command.add_option("--top-p", server.sampling.top_p, "likewise")->capture_default_str();
  command.add_option("--min-p", server.sampling.min_p, "likewise")->capture_default_str();
  command.add_flag("--no-page", flags.no_page, "no page at /");
  command.add_flag("--simulated-load", server.simulated_load, "let the page start simulated users");
  command.add_flag("-q,--quiet", flags.quiet, "no log lines on stderr");
}

}  // namespace

void register_serve(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "answer over HTTP, in the words of OpenAI's API");
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_model_options(*command, *flags);
  add_network_options(*command, *flags);
  add_manner_options(*command, *flags);
  command->callback([flags, &exit_code] { exit_code = serve(*flags); });
}

}  // namespace dspark::cli
