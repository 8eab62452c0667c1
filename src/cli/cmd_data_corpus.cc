// dspark data filter and dspark data vocab: work on corpora without a model.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/data_commands.h"
#include "cli/report.h"
#include "formats/atomic_file.h"
#include "models/config.h"
#include "train_data/corpus.h"
#include "train_data/draft_vocab.h"
#include "train_data/filters.h"

namespace dspark::cli {
namespace {

struct FilterFlags {
  std::vector<std::string> corpora;
  std::string output;  // empty: count only
  FilterOptions filter;
};

struct VocabFlags {
  std::vector<std::string> corpora;
  std::string output;
  std::string target_name;
  int32_t size = 8192;
  int32_t vocab_size = 0;
};

Status write_text(AtomicFile& file, const std::string& text) {
  return file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

void print_filter_counts(const std::map<std::string, FilterCounts>& tasks) {
  FilterCounts total;
  const auto print_row = [](const std::string& name, const FilterCounts& counts) {
    int64_t n = 0;
    std::string dropped;
    for (const auto& [reason, n_records] : counts.records) {
      n += n_records;
      if (reason != DropReason::kNone) dropped += fmt::format(", {} {}", n_records, drop_reason_name(reason));
    }
    const auto kept = counts.records.find(DropReason::kNone);
    fmt::print(
        "{:<16} {:>8} of {:>8} kept, {:>10} answer tokens, {:>10} prompt tokens; dropped {} tokens{}\n", name,
        kept == counts.records.end() ? 0 : kept->second, n, counts.kept_answer_tokens,
        counts.kept_prompt_tokens, counts.dropped_answer_tokens, dropped);
  };
  for (const auto& [task, counts] : tasks) {
    print_row(task, counts);
    for (const auto& [reason, n] : counts.records) total.records[reason] += n;
    total.kept_answer_tokens += counts.kept_answer_tokens;
    total.kept_prompt_tokens += counts.kept_prompt_tokens;
    total.dropped_answer_tokens += counts.dropped_answer_tokens;
  }
  print_row("all", total);
}

Status filter_corpora(const FilterFlags& flags) {
  AtomicFile out;
  if (!flags.output.empty()) {
    DSPARK_ASSIGN_OR_RETURN(out, AtomicFile::create(flags.output));
  }
  CorpusFilter filter(flags.filter);
  std::map<std::string, FilterCounts> tasks;
  for (const std::string& path : flags.corpora) {
    DSPARK_RETURN_IF_ERROR(for_each_record(path, [&](CorpusRecord&& record) {
      const DropReason reason = filter.check(record);
      tasks[record.task].add(record, reason);
      if (reason != DropReason::kNone || flags.output.empty()) return ok_status();
      return write_text(out, corpus_line(record) + "\n");
    }));
  }
  if (!flags.output.empty()) DSPARK_RETURN_IF_ERROR(out.commit());
  print_filter_counts(tasks);
  return ok_status();
}

void print_coverage(const std::map<std::string, Coverage>& tasks) {
  Coverage total;
  const auto print_row = [](const std::string& name, const Coverage& coverage) {
    const auto share = [&](int64_t n) {
      return static_cast<double>(n) / static_cast<double>(std::max<int64_t>(coverage.n_tokens, 1));
    };
    fmt::print(
        "{:<16} {:>9} held-out answer tokens: {:.4f} in the vocabulary, {:.4f} with the ids of the prompt\n",
        name, coverage.n_tokens, share(coverage.n_in), share(coverage.n_in_or_prompt));
  };
  for (const auto& [task, coverage] : tasks) {
    print_row(task, coverage);
    total.n_tokens += coverage.n_tokens;
    total.n_in += coverage.n_in;
    total.n_in_or_prompt += coverage.n_in_or_prompt;
  }
  print_row("all", total);
}

Status choose_vocab(const VocabFlags& flags) {
  if (flags.size > flags.vocab_size) {
    return invalid_argument(fmt::format("--size: {} of a vocabulary of {}", flags.size, flags.vocab_size));
  }
  VocabCounter counter(flags.vocab_size);
  for (const std::string& path : flags.corpora) {
    DSPARK_RETURN_IF_ERROR(for_each_record(path, [&](CorpusRecord&& record) { return counter.add(record); }));
  }
  const std::vector<int32_t> ids = counter.choose(flags.size);
  DSPARK_ASSIGN_OR_RETURN(AtomicFile out, AtomicFile::create(flags.output));
  DSPARK_RETURN_IF_ERROR(write_text(out, draft_vocab_json(ids, flags.vocab_size, flags.target_name)));
  DSPARK_RETURN_IF_ERROR(out.commit());
  fmt::print("{}: {} of {} ids, counted in {} tokens\n", flags.output, flags.size, flags.vocab_size,
             counter.n_tokens());
  print_coverage(counter.held_out_coverage(flags.size));
  return ok_status();
}

/// Rows of the target's head. errors: no such model.
Result<int32_t> vocab_size_of(const std::string& model_path) {
  DSPARK_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(model_path));
  DSPARK_ASSIGN_OR_RETURN(const ModelConfig config, read_model_config(checkpoint));
  return config.vocab_size;
}

}  // namespace

void register_data_filter(CLI::App& data, int& exit_code) {
  auto flags = std::make_shared<FilterFlags>();
  CLI::App* command = data.add_subcommand("filter", "drop answers that teach nothing, and count them");
  command->add_option("corpus", flags->corpora, "corpus files (JSON lines)")->required();
  command->add_option("-o,--output", flags->output, "filtered corpus (without: only count)");
  FilterOptions& filter = flags->filter;
  command->add_option("--min-tokens", filter.min_answer_tokens, "shortest answer")->capture_default_str();
  command->add_option("--max-loops", filter.max_loop_share, "largest share of repeated 12-grams (1: any)")
      ->capture_default_str();
  command
      ->add_option("--max-foreign", filter.max_foreign_share,
                   "largest share of characters of other scripts than Latin and Greek (1: any)")
      ->capture_default_str();
  command->add_option("--max-word", filter.max_word_bytes, "longest run without white space (0: any)")
      ->capture_default_str();
  command->add_flag("!--keep-duplicates", filter.drop_duplicates, "keep answers that are there already");
  command->callback([flags, &exit_code] {
    const Status status = filter_corpora(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

void register_data_vocab(CLI::App& data, int& exit_code) {
  auto flags = std::make_shared<VocabFlags>();
  auto model = std::make_shared<std::string>();
  CLI::App* command =
      data.add_subcommand("vocab", "choose a draft vocabulary: the most frequent ids of a corpus");
  command->add_option("corpus", flags->corpora, "corpus files (JSON lines)")->required();
  command->add_option("-m,--model", *model, "the target: GGUF or safetensors file, or folder")->required();
  command->add_option("-o,--output", flags->output, "JSON file to write")->required();
  command->add_option("--size", flags->size, "ids of the draft vocabulary")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command->callback([flags, model, &exit_code] {
    const Result<int32_t> vocab_size = vocab_size_of(*model);
    if (!vocab_size.ok()) {
      exit_code = report_failure(vocab_size.status());
      return;
    }
    flags->vocab_size = *vocab_size;
    flags->target_name = std::filesystem::path(*model).filename().string();
    const Status status = choose_vocab(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
