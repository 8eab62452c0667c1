#define USE_C10D_GLOO 1

#include "train/process_group.h"

#include <fmt/format.h>

#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace dspark {
namespace {

using at::Tensor;

// Others wait while rank 0 measures held-out samples and writes a checkpoint.
constexpr std::chrono::minutes kTimeout{30};

class Alone final : public ProcessGroup {
 public:
  Alone() : ProcessGroup(0, 1) {}

 private:
  void all_sum(Tensor&) override {}
  void all_max(Tensor&) override {}
  void broadcast(Tensor&) override {}
};

class Gloo final : public ProcessGroup {
 public:
  Gloo(int32_t rank, int32_t world, const c10::intrusive_ptr<c10d::Store>& store,
       const std::string& interface)
      : ProcessGroup(rank, world) {
    auto options = c10d::ProcessGroupGloo::Options::create(kTimeout);
    options->devices.push_back(interface.empty()
                                   ? c10d::ProcessGroupGloo::createDefaultDevice()
                                   : c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    backend_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world, options);
  }

 private:
  void reduce(Tensor& tensor, c10d::ReduceOp::RedOpType operation) {
    std::vector<Tensor> tensors = {tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = operation;
    backend_->allreduce(tensors, options)->wait();
  }
  void all_sum(Tensor& tensor) override { reduce(tensor, c10d::ReduceOp::SUM); }
  void all_max(Tensor& tensor) override { reduce(tensor, c10d::ReduceOp::MAX); }
  void broadcast(Tensor& tensor) override {
    std::vector<Tensor> tensors = {tensor};
    backend_->broadcast(tensors)->wait();
  }

  c10::intrusive_ptr<c10d::Backend> backend_;
};

/// HOST:PORT, or the path of a file. A path with a slash is never a host.
Result<c10::intrusive_ptr<c10d::Store>> open_store(const ProcessOptions& options) {
  const std::string& text = options.store;
  const size_t colon = text.rfind(':');
  if (text.find('/') != std::string::npos || colon == std::string::npos) {
    if (text.empty()) return invalid_argument("--store: expected a file or HOST:PORT");
    return c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::FileStore>(text, options.world));
  }
  char* end = nullptr;
  const std::string digits = text.substr(colon + 1);
  const long port = std::strtol(digits.c_str(), &end, 10);
  if (colon == 0 || digits.empty() || *end != '\0' || port < 1 || port > 65535) {
    return invalid_argument(fmt::format("--store: expected a file or HOST:PORT, found '{}'", text));
  }
  c10d::TCPStoreOptions tcp;
  tcp.port = static_cast<uint16_t>(port);
  tcp.isServer = options.rank == 0;
  tcp.numWorkers = static_cast<size_t>(options.world);
  tcp.timeout = kTimeout;
  return c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::TCPStore>(text.substr(0, colon), tcp));
}

/// All tensors behind one another, fp32 on the CPU.
Tensor flatten(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> parts;
  for (const Tensor& tensor : tensors) parts.push_back(tensor.detach().to(at::kCPU, at::kFloat).flatten());
  return at::cat(parts, 0);
}

void unflatten(const Tensor& flat, const std::vector<Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  int64_t begin = 0;
  for (const Tensor& tensor : tensors) {
    Tensor target = tensor.detach();
    target.copy_(flat.slice(0, begin, begin + tensor.numel()).view(tensor.sizes()));
    begin += tensor.numel();
  }
}

}  // namespace

Result<std::unique_ptr<ProcessGroup>> ProcessGroup::join(const ProcessOptions& options) {
  if (options.world == 1) return std::unique_ptr<ProcessGroup>(new Alone());
  DSPARK_ASSIGN_OR_RETURN(const auto store, open_store(options));
  return std::unique_ptr<ProcessGroup>(new Gloo(options.rank, options.world, store, options.interface));
}

void ProcessGroup::sum(std::vector<double>& values) {
  if (world_ == 1) return;
  Tensor tensor = at::tensor(values, at::kDouble);
  all_sum(tensor);
  const auto* data = tensor.const_data_ptr<double>();
  values.assign(data, data + tensor.numel());
}

double ProcessGroup::sum(double value) {
  std::vector<double> values = {value};
  sum(values);
  return values[0];
}

int64_t ProcessGroup::max(int64_t value) {
  if (world_ == 1) return value;
  Tensor tensor = at::full({1}, value, at::kLong);
  all_max(tensor);
  return tensor.item<int64_t>();
}

void ProcessGroup::sum_gradients(const TensorMap& params) {
  if (world_ == 1) return;
  std::vector<Tensor> gradients;
  for (const auto& [name, tensor] : params) {
    if (!tensor.grad().defined()) tensor.mutable_grad() = at::zeros_like(tensor.detach());
    gradients.push_back(tensor.grad());
  }
  Tensor flat = flatten(gradients);
  all_sum(flat);
  unflatten(flat, gradients);
}

void ProcessGroup::merge(StepMetrics& m) {
  if (world_ == 1) return;
  std::vector<double> values = {m.loss,
                                m.ce,
                                m.soft_ce,
                                m.l1,
                                m.confidence,
                                m.confidence_abs_error,
                                m.confidence_bias,
                                m.tau * static_cast<double>(m.n_lengths),
                                static_cast<double>(m.n_lengths),
                                static_cast<double>(m.n_blocks),
                                static_cast<double>(m.n_slots)};
  const size_t n_fixed = values.size();
  const size_t n_slots = m.accept_rate.size();
  for (size_t i = 0; i < n_slots; ++i) values.push_back(m.accept_rate[i] * m.accept_count[i]);
  values.insert(values.end(), m.accept_count.begin(), m.accept_count.end());
  values.insert(values.end(), m.step_loss.begin(), m.step_loss.end());
  sum(values);
  size_t at = 0;
  for (double* sum_of : {&m.loss, &m.ce, &m.soft_ce, &m.l1, &m.confidence, &m.confidence_abs_error,
                         &m.confidence_bias, &m.tau}) {
    *sum_of = values[at++];
  }
  for (int64_t* count : {&m.n_lengths, &m.n_blocks, &m.n_slots}) *count = static_cast<int64_t>(values[at++]);
  m.tau /= static_cast<double>(std::max<int64_t>(1, m.n_lengths));
  for (size_t i = 0; i < n_slots; ++i) {
    m.accept_count[i] = values[n_fixed + n_slots + i];
    m.accept_rate[i] = values[n_fixed + i] / std::max(1.0, m.accept_count[i]);
  }
  for (size_t i = 0; i < m.step_loss.size(); ++i) m.step_loss[i] = values[n_fixed + 2 * n_slots + i];
}

void ProcessGroup::copy_from_leader(const TensorMap& tensors) {
  if (world_ == 1 || tensors.empty()) return;
  std::vector<Tensor> list;
  for (const auto& [name, tensor] : tensors) list.push_back(tensor);
  Tensor flat = flatten(list);
  broadcast(flat);
  unflatten(flat, list);
}

}  // namespace dspark
