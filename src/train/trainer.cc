#include "train/trainer.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <limits>

#include "draft/draft_checkpoint.h"
#include "train/data_source.h"
#include "train/draft_growth.h"
#include "train/draft_init.h"
#include "train/draft_step.h"
#include "train/head_product.h"
#include "train/optimizer.h"
#include "train/paired_step.h"
#include "train/process_group.h"
#include "train/run_log.h"
#include "train/run_options.h"
#include "train/step_plan.h"
#include "train/step_scale.h"
#include "train/train_state.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using at::Tensor;

using Clock = std::chrono::steady_clock;

/// Whether steps differ by more than the learning rate (train/step_plan.h).
bool has_stages(const TrainOptions& o) {
  return o.first_stage > 0 || o.short_blocks > 0 || o.curriculum || o.loss_slide;
}

constexpr int64_t kEvalSequences = 64;  // held-out samples per measurement, at most

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Log-sum-exps of target rows, from the cache where it has them, else computed once and kept.
class LogSums {
 public:
  Tensor rows(const TargetHead& head, const std::vector<AnchorSet>& sets, const TargetRows& batch) const {
    const size_t n = batch.target_position.size();
    std::vector<float> values(n, std::numeric_limits<float>::quiet_NaN());
    std::vector<int64_t> missing;
    for (size_t i = 0; i < n; ++i) {
      const std::vector<float>& stored = sets[static_cast<size_t>(batch.target_sample[i])].sample.log_sum_exp;
      if (!stored.empty()) values[i] = stored[static_cast<size_t>(batch.target_position[i])];
      if (std::isnan(values[i])) missing.push_back(static_cast<int64_t>(i));
    }
    const Tensor out = at::tensor(values).to(batch.target_hidden.device());
    if (missing.empty()) return out;
    const Tensor at = at::tensor(missing, at::kLong).to(out.device());
    return out.index_copy(0, at, target_log_sum(head, batch.target_hidden.index_select(0, at)));
  }
};

/// One run, from opening to its last checkpoint.
class Run {
 public:
  Run(const TrainOptions& options, const TrainCallbacks& callbacks, SampleSources sources)
      : options_(options),
        callbacks_(callbacks),
        sources_(std::move(sources)),
        device_(options.device),
        precision_(choose_precision(options.float32, options.bf16, device_.is_cpu(), cpu_has_bf16_dot())) {}

  Status execute() {
    DSPARK_RETURN_IF_ERROR(open());
    earlier_s_ = counters_.elapsed_s;
    start_ = Clock::now();
    double saved_s = 0;
    while (true) {
      const Turn turn = next_turn();
      if (turn.over) break;
      DSPARK_ASSIGN_OR_RETURN(const TrainRecord record, step(turn));
      if (!std::isfinite(record.loss) || !std::isfinite(record.gradient_norm)) {
        return internal_error(fmt::format("step {}: the loss is not a number; the last good state is in {}",
                                          record.step, options_.out));
      }
      if (log_) DSPARK_RETURN_IF_ERROR(log_->append(log_row(record)));
      const bool wants_more = !callbacks_.on_step || callbacks_.on_step(record);
      const bool go_on = group_->sum(wants_more ? 0.0 : 1.0) == 0.0;
      const bool by_count = options_.checkpoint_steps > 0 && counters_.step % options_.checkpoint_steps == 0;
      const double now = seconds_since(start_);
      if (!go_on || by_count || now - saved_s > options_.checkpoint_minutes * 60) {
        DSPARK_RETURN_IF_ERROR(checkpoint());
        saved_s = seconds_since(start_);
      }
      if (!go_on) return ok_status();
    }
    return counters_.step == saved_step_ ? ok_status() : checkpoint();
  }

 private:
  Status open() {
    DSPARK_ASSIGN_OR_RETURN(group_, ProcessGroup::join(options_.processes));
    DSPARK_ASSIGN_OR_RETURN(TrainTarget target, open_train_target(options_.target));
    for (const std::string& folder : sources_.empty() ? options_.caches : std::vector<std::string>()) {
      DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<SampleSource> source, open_cache_source(folder));
      sources_.push_back(std::move(source));
    }
    for (const auto& source : sources_) DSPARK_RETURN_IF_ERROR(check_source(*source, target.config));
    DSPARK_RETURN_IF_ERROR(open_folder());
    share_precision();
    DSPARK_RETURN_IF_ERROR(open_model(target));
    DSPARK_RETURN_IF_ERROR(check_model(*sources_.front(), target.config));
    // A drafter tells which short blocks it was trained for; one that goes on without them keeps its own.
    const bool is_shorter = options_.short_block_size < model_.config.block_size;
    if (options_.short_blocks > 0 && is_shorter) model_.config.short_block = options_.short_block_size;
    TensorMap scales;
    if (options_.step_scale && !options_.resume) {
      DSPARK_ASSIGN_OR_RETURN(scales, step_scales(model_.trainable, *sources_.front()));
      group_->copy_from_leader(scales);  // rank 0's measurement counts for all
    }
    DSPARK_ASSIGN_OR_RETURN(DataSource data, DataSource::create(options_, std::move(sources_)));
    data_ = std::make_unique<DataSource>(std::move(data));
    frozen_ = frozen_target(model_.config, target.embedding, target.head, precision_, device_);
    move_to(model_, device_);
    adam_ = std::make_unique<AdamW>(model_.trainable,
                                    AdamOptions{options_.beta1, options_.beta2, 1e-8, options_.weight_decay});
    adam_->scale(std::move(scales), device_);
    if (options_.resume) {
      DSPARK_RETURN_IF_ERROR(
          load_state(path("state.safetensors"), model_.trainable, *adam_, average_, counters_));
      saved_step_ = counters_.step;
    }
    group_->copy_from_leader(model_.trainable);  // first weights may differ in the last bit between machines
    if (options_.average > 0 && average_.empty()) {
      for (const auto& [name, tensor] : model_.trainable) average_[name] = tensor.detach().clone();
    }
    if (!group_->leads()) return ok_status();
    DSPARK_RETURN_IF_ERROR(save_run_options(path("options.json"), options_, precision_));
    const std::string header = log_header(model_.config.n_drafts());
    DSPARK_ASSIGN_OR_RETURN(RunLog log, RunLog::open(path("log.csv"), header, counters_.step));
    log_ = std::make_unique<RunLog>(std::move(log));
    DSPARK_ASSIGN_OR_RETURN(RunLog eval, RunLog::open(path("eval.csv"), header, counters_.step));
    eval_log_ = std::make_unique<RunLog>(std::move(eval));
    note(describe());
    if (precision_ == Precision::kFloat32 && !options_.float32 && !cpu_has_bf16_dot()) {
      note("products in fp32: this CPU has no bf16 dot products (--bf16 emulates them)");
    }
    return ok_status();
  }

  std::string path(const char* name) const { return (fs::path(options_.out) / name).string(); }
  void note(const std::string& text) const {
    if (callbacks_.on_note) callbacks_.on_note(text);
  }

  std::string describe() const {
    int64_t n_params = 0;
    for (const auto& [name, tensor] : model_.trainable) n_params += tensor.numel();
    const DraftConfig& c = model_.config;
    return fmt::format(
        "{} drafter: {} layer(s), block {}, rank {}, draft vocabulary {} of {}, mask token {}, {:.2f} M "
        "trainable; "
        "{} samples, {} held out; step {}",
        draft_kind_name(c.kind), c.n_layers, c.block_size, c.markov_rank, c.draft_vocab_size, c.vocab_size,
        c.mask_token_id, static_cast<double>(n_params) * 1e-6, data_->n_train(), data_->n_held_out(),
        counters_.step);
  }

  Status check_source(const SampleSource& source, const ModelConfig& target) const {
    const TargetCacheInfo& info = source.info();
    if (info.hidden_size != target.dim) {
      return invalid_argument(fmt::format("{}: hidden_size is {}, the target's width is {}", source.name(),
                                          info.hidden_size, target.dim));
    }
    if (info.target_layer_ids.back() >= target.n_layers) {
      return invalid_argument(fmt::format("{}: target_layer_ids end with {}, the target has {} layers",
                                          source.name(), info.target_layer_ids.back(), target.n_layers));
    }
    const TargetCacheInfo& first = sources_.front()->info();
    if (info.target_layer_ids != first.target_layer_ids ||
        info.target_model_name_or_path != first.target_model_name_or_path) {
      return invalid_argument(source.name() + ": made with another target or other layers than " +
                              sources_.front()->name());
    }
    return ok_status();
  }

  /// Rank 0's processor decides for all.
  void share_precision() {
    const bool float32 = group_->leads() && precision_ == Precision::kFloat32;
    precision_ = group_->sum(float32 ? 1.0 : 0.0) > 0 ? Precision::kFloat32 : Precision::kBFloat16;
  }

  Status open_folder() {
    std::error_code ec;
    if (group_->leads()) fs::create_directories(options_.out, ec);
    if (ec) return invalid_argument(options_.out + ": cannot make the folder: " + ec.message());
    const bool begun = fs::exists(path("state.safetensors"), ec);
    if (begun != options_.resume) {
      return invalid_argument(options_.out + (begun ? ": holds a run already: continue it with --resume"
                                                    : ": --resume, but there is no state.safetensors"));
    }
    if (!options_.resume) return ok_status();
    DSPARK_ASSIGN_OR_RETURN(precision_, check_run_options(path("options.json"), options_, precision_));
    return ok_status();
  }

  Status open_model(const TrainTarget& target) {
    if (options_.resume || !options_.init.empty()) {
      DSPARK_ASSIGN_OR_RETURN(const DraftCheckpoint start,
                              open_draft_checkpoint(options_.resume ? path("draft") : options_.init));
      DSPARK_ASSIGN_OR_RETURN(model_, draft_model_from(start));
    } else {
      DSPARK_ASSIGN_OR_RETURN(model_, new_draft_model(options_, target, sources_));
    }
    return options_.resume ? ok_status() : grow_draft(model_, options_);
  }

  Status check_model(const SampleSource& source, const ModelConfig& target) const {
    const DraftConfig& config = model_.config;
    if (!is_paired(config.kind) && !config.anchor_predicts) {
      return unsupported(fmt::format("{} drafters whose anchor slot predicts nothing cannot be trained",
                                     draft_kind_name(config.kind)));
    }
    if (is_paired(config.kind) && has_stages(options_)) {
      return invalid_argument(
          fmt::format("--first-stage, --short-blocks, --curriculum, --loss-slide: not for {} drafters, which "
                      "have no blocks",
                      draft_kind_name(config.kind)));
    }
    DSPARK_RETURN_IF_ERROR(check_draft_fits(config, target));
    if (config.kind == DraftKind::kMtp) return ok_status();  // reads the last hidden rows only
    std::vector<int32_t> ids;
    for (int32_t tap : config.taps) ids.push_back(tap - 1);
    if (ids != source.info().target_layer_ids) {
      return invalid_argument("the drafter's target_layer_ids are not those of " + source.name());
    }
    return ok_status();
  }

  struct Turn {
    bool over = false;  // the run is
    double progress = 0;
    double rate = 0;
  };

  /// What the next step depends on: rank 0's clock decides for all.
  Turn next_turn() {
    std::vector<double> turn(3);
    if (group_->leads()) turn = {finished() ? 1.0 : 0.0, progress(), learning_rate()};
    group_->sum(turn);
    return {turn[0] != 0, turn[1], turn[2]};
  }

  /// Of all parts of the run.
  double elapsed() const { return earlier_s_ + seconds_since(start_); }

  bool finished() const {
    if (options_.steps > 0) return counters_.step >= options_.steps;
    return elapsed() >= options_.minutes * 60;
  }

  /// Share of the budget that is used.
  double progress() const {
    if (options_.steps > 0) return static_cast<double>(counters_.step) / static_cast<double>(options_.steps);
    return elapsed() / (options_.minutes * 60);
  }

  double learning_rate() const {
    if (options_.steps > 0) {
      return learning_rate_at_step(options_.learning_rate, options_.warmup, counters_.step, options_.steps);
    }
    return learning_rate_at(options_.learning_rate, options_.warmup, progress());
  }

  /// `group`: nullptr when the other processes do not take part.
  StepMetrics run_batch(const std::vector<AnchorSet>& sets, const DraftConfig& config,
                        const TensorMap& params, const LossWeights& weights, double scale,
                        ProcessGroup* group) const {
    const GlobalSum global_sum =
        group == nullptr ? GlobalSum() : [group](double value) { return group->sum(value); };
    if (is_paired(config.kind)) {
      PairedBatch batch = build_paired_batch(sets, config, options_.max_context, device_);
      const Tensor log_sum = log_sums_.rows(frozen_.head, sets, batch);
      if (group != nullptr) batch.n_padded = group->world() * group->max(batch.n_padded);
      return train_paired_step(config, params, frozen_, batch, log_sum, scale, precision_, global_sum);
    }
    const StepBatch batch = build_step_batch(sets, config, options_.max_context, device_);
    const Tensor log_sum = log_sums_.rows(frozen_.head, sets, batch);
    return train_step(config, params, frozen_, batch, log_sum, weights, scale, precision_, global_sum);
  }

  static void add_metrics(TrainRecord& record, const StepMetrics& metrics, double share) {
    record.loss += share * metrics.loss;
    record.ce += share * metrics.ce;
    record.soft_ce += share * metrics.soft_ce;
    record.l1 += share * metrics.l1;
    record.confidence += share * metrics.confidence;
    record.tau += share * metrics.tau;
    record.confidence_abs_error += share * metrics.confidence_abs_error;
    record.confidence_bias += share * metrics.confidence_bias;
    // Slots that were not trained stay 0.
    for (size_t i = 0; i < metrics.accept_rate.size(); ++i)
      record.accept_rate[i] += share * metrics.accept_rate[i];
  }

  TrainRecord empty_record() const {
    TrainRecord record;
    record.accept_rate.resize(static_cast<size_t>(model_.config.n_drafts()));
    return record;
  }

  Result<TrainRecord> step(const Turn& turn) {
    TrainRecord record = empty_record();
    DraftConfig config = model_.config;
    const StepPlan plan = plan_step(options_, config.block_size, counters_.step, turn.progress);
    config.block_size = plan.block_size;
    zero_gradients(model_.trainable);
    const TensorMap params = model_.all();
    const double share = 1.0 / options_.accumulate;
    for (int32_t micro = 0; micro < options_.accumulate; ++micro) {
      const int64_t index = counters_.step * options_.accumulate + micro;
      DSPARK_ASSIGN_OR_RETURN(const std::vector<AnchorSet> sets, data_->micro_step(index, plan.anchors));
      StepMetrics metrics = run_batch(sets, config, params, plan.weights, share, group_.get());
      group_->merge(metrics);
      counters_.anchors += metrics.n_blocks;
      add_metrics(record, metrics, share);
    }
    group_->sum_gradients(model_.trainable);
    adam_->scale_gradients(model_.trainable);
    record.gradient_norm = clip_gradients(model_.trainable, options_.clip);
    adam_->step(model_.trainable, turn.rate);
    if (!average_.empty()) update_average(average_, model_.trainable, options_.average, counters_.step);
    ++counters_.step;
    record.step = counters_.step;
    record.learning_rate = turn.rate;
    record.anchors = counters_.anchors;
    record.elapsed_s = elapsed();
    record.epoch = static_cast<double>(counters_.step * options_.accumulate) /
                   static_cast<double>(data_->micro_steps_per_epoch());
    return record;
  }

  /// Held-out samples with the weights that are exported.
  Status evaluate() {
    const int64_t n = std::min(kEvalSequences, data_->n_held_out());
    if (n == 0) return ok_status();
    TensorMap params = average_.empty() ? model_.trainable : average_;
    params.insert(model_.buffers.begin(), model_.buffers.end());
    const LossWeights weights = {options_.ce, options_.soft_ce, options_.l1, options_.confidence,
                                 options_.decay};
    std::vector<StepMetrics> parts;
    int64_t n_blocks = 0;
    for (int64_t first = 0; first < n; first += options_.sequences) {
      DSPARK_ASSIGN_OR_RETURN(const std::vector<AnchorSet> sets,
                              data_->held_out(first, std::min<int64_t>(options_.sequences, n - first)));
      parts.push_back(run_batch(sets, model_.config, params, weights, 0.0, nullptr));
      n_blocks += parts.back().n_blocks;
    }
    TrainRecord mean = empty_record();
    mean.step = counters_.step;
    mean.anchors = counters_.anchors;
    mean.elapsed_s = elapsed();
    for (const StepMetrics& part : parts) {
      add_metrics(mean, part, static_cast<double>(part.n_blocks) / static_cast<double>(n_blocks));
    }
    DSPARK_RETURN_IF_ERROR(eval_log_->append(log_row(mean)));
    note(fmt::format("step {}: held out: tau {:.3f}, l1 {:.4f}, loss {:.4f} ({} blocks)", counters_.step,
                     mean.tau, mean.l1, mean.loss, n_blocks));
    return ok_status();
  }

  Status checkpoint() {
    if (!group_->leads()) return ok_status();
    counters_.elapsed_s = elapsed();
    // The state last: what it claims to have been measured and exported is there. Rows of eval.csv behind the
    // last state are cut off when the run goes on.
    DSPARK_RETURN_IF_ERROR(evaluate());
    DSPARK_RETURN_IF_ERROR(export_draft(path("draft"), model_.config,
                                        average_.empty() ? model_.trainable : average_, model_.buffers));
    saved_step_ = counters_.step;
    return save_state(path("state.safetensors"), model_.trainable, *adam_, average_, counters_);
  }

  TrainOptions options_;
  TrainCallbacks callbacks_;
  SampleSources sources_;  // until data_ has them
  at::Device device_;
  Precision precision_;
  DraftModel model_;
  FrozenTarget frozen_;
  LogSums log_sums_;
  std::unique_ptr<ProcessGroup> group_;
  std::unique_ptr<DataSource> data_;
  std::unique_ptr<AdamW> adam_;
  std::unique_ptr<RunLog> log_;  // of rank 0, as eval_log_
  std::unique_ptr<RunLog> eval_log_;
  TensorMap average_;
  TrainCounters counters_;
  Clock::time_point start_;
  double earlier_s_ = 0;     // before this part of the run
  int64_t saved_step_ = -1;  // of the newest state
};

}  // namespace

Status ProcessOptions::validate() const {
  if (world < 1 || rank < 0 || rank >= world) {
    return invalid_argument(fmt::format("--process, --world: expected a process of 0 to {}, found {}",
                                        std::max(world, 1) - 1, rank));
  }
  if (world > 1 && store.empty()) return invalid_argument("--store: several processes need a place to meet");
  return ok_status();
}

Status TrainOptions::validate() const {
  DSPARK_RETURN_IF_ERROR(processes.validate());
  const auto wrong = [](const char* option, const char* expected) {
    return invalid_argument(fmt::format("{}: expected {}", option, expected));
  };
  if ((steps > 0) == (minutes > 0)) return invalid_argument("give either --steps or --minutes");
  if (layers < 1 || layers > 64) return wrong("--layers", "1 to 64");
  if (kv_heads < 0) return wrong("--kv-heads", "0 or more");
  if (add_layers < 0 || add_layers > 64) return wrong("--add-layers", "0 to 64");
  if (add_layers > 0 && init.empty()) return wrong("--add-layers", "--init, the drafter that grows");
  if (block_size < 1 || block_size > 64) return wrong("--block", "1 to 64");
  if (markov_rank < 0 || markov_rank > 4096) return wrong("--rank", "0 to 4096");
  if (draft_vocab < 0 || draft_vocab % 2 != 0)
    return wrong("--draft-vocab", "an even number, or 0 for all ids");
  if (sequences < 1 || anchors < 1 || accumulate < 1) {
    return wrong("--sequences, --anchors, --accumulate", "at least 1");
  }
  if (!(learning_rate > 0)) return wrong("--lr", "a number above 0");
  if (!(warmup >= 0 && warmup < 1)) return wrong("--warmup", "0 to below 1");
  if (!(average >= 0 && average < 1)) return wrong("--average", "0 to below 1");
  if (!(holdout >= 0 && holdout <= 0.5)) return wrong("--holdout", "0 to 0.5");
  if (!(decay > 0)) return wrong("--decay", "a number above 0");
  if (!(first_stage >= 0 && first_stage < 1)) return wrong("--first-stage", "0 to below 1");
  if (first_anchors < 0) return wrong("--first-anchors", "at least 1, or 0 for as many slots as later");
  if (!(short_blocks >= 0 && short_blocks <= 1)) return wrong("--short-blocks", "0 to 1");
  if (short_block_size < 1 || short_block_size > 64) return wrong("--short-block", "1 to 64");
  if (!(clip > 0)) return wrong("--clip", "a number above 0");
  if (float32 && bf16) return invalid_argument("give either --float32 or --bf16");
  if (threads < 1) return wrong("--threads", "at least 1");
  if (device != "cpu" && device.rfind("cuda", 0) != 0) return wrong("--device", "cpu or cuda");
  return ok_status();
}

Status train_drafter(const TrainOptions& options, const TrainCallbacks& callbacks, SampleSources sources) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  if (options.caches.empty() && sources.empty()) {
    return invalid_argument("--data: expected at least one target cache");
  }
  try {
    at::set_num_threads(options.threads);
    return Run(options, callbacks, std::move(sources)).execute();
  } catch (const c10::Error& error) {
    return internal_error(std::string("libtorch: ") + error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return out_of_memory("out of memory");
  } catch (const std::exception& error) {
    return internal_error(std::string("training failed: ") + error.what());
  }
}

}  // namespace dspark
