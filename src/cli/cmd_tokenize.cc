// dspark tokenize: what a model's tokenizer makes of a text, and back.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/model_flags.h"
#include "cli/report.h"
#include "formats/checkpoint.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace dspark::cli {
namespace {

using nlohmann::ordered_json;

struct TokenizeFlags {
  std::string model;
  std::string text;
  std::string file;
  std::string decode;
  bool has_text = false;
  bool has_decode = false;
  bool no_special = false;
  bool no_parse_special = false;
  bool ids = false;
  bool json = false;
};

Result<std::string> read_stream(std::istream& in, const std::string& name) {
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (in.bad()) return invalid_argument(name + ": cannot read the text");
  return text;
}

Result<std::string> input_text(const TokenizeFlags& flags) {
  if (flags.has_text) return flags.text;
  if (flags.file.empty() || flags.file == "-") return read_stream(std::cin, "standard input");
  std::ifstream in(flags.file, std::ios::binary);
  if (!in) return not_found(flags.file + ": cannot open the text");
  return read_stream(in, flags.file);
}

/// "1,2,3", also with spaces.
Result<std::vector<int32_t>> parse_ids(std::string_view list, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  const char* p = list.data();
  const char* end = p + list.size();
  while (p != end) {
    if (*p == ',' || *p == ' ' || *p == '\n') {
      ++p;
      continue;
    }
    int32_t id = -1;
    const auto [next, error] = std::from_chars(p, end, id);
    const bool ended = next == end || *next == ',' || *next == ' ' || *next == '\n';
    if (error != std::errc() || !ended || id < 0 || id >= tokenizer.vocab_size()) {
      const std::string word(p, std::find(p, end, ','));
      return invalid_argument(fmt::format("--decode: expected ids from 0 to {} with commas, found '{}'",
                                          tokenizer.vocab_size() - 1, word));
    }
    ids.push_back(id);
    p = next;
  }
  return ids;
}

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

void print_decoded(const TokenizeFlags& flags, const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const std::string text = tokenizer.decode(ids, flags.no_special);
  if (flags.json) {
    fmt::print("{}\n", dump({{"ids", ids}, {"text", to_valid_utf8(text)}}));
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);  // bytes as they are: a token may be half a character
    std::fputc('\n', stdout);
  }
}

void print_json(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  ordered_json tokens = ordered_json::array();
  for (int32_t id : ids) {
    tokens.push_back({{"id", id},
                      {"text", to_valid_utf8(tokenizer.token_bytes(id))},
                      {"special", tokenizer.is_special(id)}});
  }
  fmt::print("{}\n", dump({{"n_tokens", ids.size()}, {"ids", ids}, {"tokens", tokens}}));
}

void print_encoded(const TokenizeFlags& flags, const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  if (flags.json) return print_json(tokenizer, ids);
  if (flags.ids) return fmt::print("{}\n", fmt::join(ids, ","));
  for (int32_t id : ids) {
    // As JSON text: one line each, whatever the token holds.
    fmt::print("{:>7} {}{}\n", id, dump(ordered_json(to_valid_utf8(tokenizer.token_bytes(id)))),
               tokenizer.is_special(id) ? "  (special)" : "");
  }
  fmt::print("{} tokens, {}\n", ids.size(), tokenizer.description());
}

Status run(const TokenizeFlags& flags) {
  std::string path = flags.model;
  if (path.empty()) {
    DSPARK_ASSIGN_OR_RETURN(path, default_model_path());
  }
  DSPARK_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(path));
  DSPARK_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(checkpoint));
  if (flags.has_decode) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, parse_ids(flags.decode, tokenizer));
    print_decoded(flags, tokenizer, ids);
    return ok_status();
  }
  DSPARK_ASSIGN_OR_RETURN(const std::string text, input_text(flags));
  print_encoded(flags, tokenizer, tokenizer.encode(text, !flags.no_special, !flags.no_parse_special));
  return ok_status();
}

}  // namespace

void register_tokenize(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("tokenize", "show the tokens of a text, or the text of tokens");
  const auto flags = std::make_shared<TokenizeFlags>();
  command->add_option("-m,--model", flags->model, "model: a .gguf file or a Hugging Face folder");
  CLI::Option* text = command->add_option("text", flags->text, "the text; without it and -f: standard input");
  CLI::Option* file =
      command->add_option("-f,--file", flags->file, "read the text from a file (- = standard input)");
  CLI::Option* decode =
      command->add_option("--decode", flags->decode, "print the text of these ids, e.g. 1,2,3");
  command->add_flag("--no-special", flags->no_special,
                    "do not add BOS/EOS; with --decode: leave special tokens out of the text");
  command->add_flag("--no-parse-special", flags->no_parse_special,
                    "read the text of special tokens as ordinary text");
  CLI::Option* ids = command->add_flag("--ids", flags->ids, "print only the ids, separated by commas");
  CLI::Option* json = command->add_flag("--json", flags->json, "print one JSON object");
  file->excludes(text);
  decode->excludes(text)->excludes(file)->excludes(ids);
  json->excludes(ids);
  command->callback([flags, text, decode, &exit_code] {
    flags->has_text = text->count() > 0;
    flags->has_decode = decode->count() > 0;
    const Status status = run(*flags);
    exit_code = status.ok() ? 0 : report_failure(status);
  });
}

}  // namespace dspark::cli
