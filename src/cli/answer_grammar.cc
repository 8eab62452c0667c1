#include "cli/answer_grammar.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "constrain/grammar_constraint.h"

namespace dspark::cli {
namespace {

Result<std::string> read_source(const std::string& flag, const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) return not_found(flag + ": " + path + " cannot be opened");
  std::string text;
  char buffer[1 << 16];
  size_t n = 0;
  while ((n = std::fread(buffer, 1, sizeof(buffer), file.get())) > 0) {
    text.append(buffer, n);
    if (text.size() > kMaxGrammarBytes)
      return resource_exhausted(flag + ": " + path + " is larger than 1 MiB");
  }
  if (std::ferror(file.get()) != 0) return invalid_argument(flag + ": " + path + " cannot be read");
  return text;
}

bool is_inline_schema(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\n\r");
  return first != std::string::npos && text[first] == '{';
}

Result<Grammar> read_schema(const std::string& text) {
  if (is_inline_schema(text)) return Grammar::from_json_schema(text, "--json-schema");
  DSPARK_ASSIGN_OR_RETURN(const std::string source, read_source("--json-schema", text));
  return Grammar::from_json_schema(source, text);
}

Result<Grammar> read_gbnf(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(const std::string source, read_source("--grammar", path));
  return Grammar::from_gbnf(source, path);
}

}  // namespace

void add_grammar_flags(CLI::App& command, GrammarFlags& flags) {
  command.add_option("--grammar,--grammar-file", flags.grammar,
                     "hold the answer to the GBNF grammar in this file");
  command.add_option("--json-schema", flags.json_schema,
                     "hold the answer to a JSON schema: a file, or the schema itself");
  command.add_flag("--json-object", flags.json_object, "hold the answer to one JSON object");
}

Result<std::optional<Grammar>> read_grammar(const GrammarFlags& flags) {
  const int n_flags = (flags.grammar ? 1 : 0) + (flags.json_schema ? 1 : 0) + (flags.json_object ? 1 : 0);
  if (n_flags > 1) return invalid_argument("--grammar, --json-schema and --json-object exclude each other");
  if (n_flags == 0) return std::optional<Grammar>();
  Result<Grammar> grammar = flags.grammar       ? read_gbnf(*flags.grammar)
                            : flags.json_schema ? read_schema(*flags.json_schema)
                                                : Grammar::json_object();
  if (!grammar.ok()) return grammar.status();
  return std::optional<Grammar>(std::move(grammar).value());
}

std::shared_ptr<const TokenConstraint> make_constraint(const Grammar& grammar, const LoadedModel& loaded,
                                                       int32_t max_tokens) {
  const int32_t vocab_size = loaded.model->config().vocab_size;
  return std::make_shared<const GrammarConstraint>(grammar, make_token_trie(*loaded.tokenizer, vocab_size),
                                                   GrammarConstraint::Options{max_tokens});
}

}  // namespace dspark::cli
