// Drafters whose sizes fit, made for another model all the same.

#include "draft/target_match.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "draft/draft_to_gguf.h"
#include "draft/factory.h"
#include "draft_edit.h"
#include "engine/random_drafter_folder.h"
#include "models/model.h"

namespace dspark {
namespace {

constexpr int32_t kVocabulary = 320;

std::vector<std::string> token_texts() {
  std::vector<std::string> texts;
  for (int32_t i = 0; i < kVocabulary; ++i) texts.push_back("<t" + std::to_string(i) + ">");
  return texts;
}

/// A target and a drafter for it, both GGUF files with the texts of their tokens.
class TargetMatch : public testing::Test {
 protected:
  void SetUp() override {
    const Checkpoint plain = test::open_file(test::data_dir() / "models" / "qwen2_bias_tied" / "model.gguf");
    test::write_gguf(folder_.file("target.gguf"), plain, test::load_tensors(plain), [](GgufWriter& w) {
      w.set_strings("tokenizer.ggml.tokens", token_texts());
      w.set_i32s("tokenizer.ggml.token_type", std::vector<int32_t>(kVocabulary, 1));
    });
    auto model = TargetModel::open(folder_.file("target.gguf"), pool_);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    model_ = std::move(model).value();
    const std::string drafter = folder_.file("drafter");
    test::write_random_drafter(drafter, model_->config(), 4, 3);
    const auto draft = open_draft_checkpoint(drafter);
    ASSERT_TRUE(draft.ok()) << draft.status().to_string();
    DraftGgufOptions options;
    options.types.type = DType::kBF16;
    options.target = &model_->checkpoint();
    const auto written = draft_to_gguf(*draft, folder_.file("drafter.gguf"), options, pool_, {});
    ASSERT_TRUE(written.ok()) << written.status().to_string();
  }

  /// The drafter with another list of tokens, beside the target.
  Status load(const std::vector<std::string>& texts, const std::vector<int32_t>& kinds) {
    const Checkpoint file = test::open_file(folder_.file("drafter.gguf"));
    const std::string path = folder_.file("changed.gguf");
    test::write_gguf(path, file, test::load_tensors(file), [&](GgufWriter& w) {
      w.set_strings("tokenizer.ggml.tokens", texts);
      w.set_i32s("tokenizer.ggml.token_type", kinds);
    });
    return make_drafter(path, context()).status();
  }

  DrafterContext context() {
    DrafterContext context;
    context.target = model_.get();
    context.pool = &pool_;
    context.context_length = 64;
    context.kv_dtype = KvDType::kF32;
    return context;
  }

  test::TempFolder folder_;
  ThreadPool pool_{1};
  std::unique_ptr<TargetModel> model_;
};

TEST_F(TargetMatch, OtherTokensAreAnotherTarget) {
  const std::vector<int32_t> ordinary(kVocabulary, 1);
  std::vector<std::string> texts = token_texts();
  EXPECT_TRUE(load(texts, ordinary).ok());
  texts[17] = "other";
  texts[200] = "more";
  const Status refused = load(texts, ordinary);
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_MENTIONS(refused.message(), "changed.gguf: the drafter was not made for this target");
  EXPECT_MENTIONS(refused.message(), "its token 17 is 'other', that of");
  EXPECT_MENTIONS(refused.message(), "target.gguf is '<t17>'");
  // Converters name padding and control tokens as they like.
  std::vector<int32_t> kinds = ordinary;
  kinds[17] = 5;
  kinds[200] = 3;
  EXPECT_TRUE(load(texts, kinds).ok());
  // A shorter list (the vocabulary's size stands in vocab_size) is compared as far as it goes.
  texts = token_texts();
  texts.resize(300);
  EXPECT_TRUE(load(texts, std::vector<int32_t>(300, 1)).ok());
}

TEST_F(TargetMatch, FilesWithoutTokensAreNotCompared) {
  const Checkpoint file = test::open_file(folder_.file("drafter.gguf"));
  const std::string path = folder_.file("changed.gguf");
  test::write_gguf(path, file, test::load_tensors(file), [](GgufWriter& w) {
    w.remove("tokenizer.ggml.tokens");
    w.remove("tokenizer.ggml.token_type");
    w.set_string("dspark.target_name", "Some Model");
  });
  const auto drafter = make_drafter(path, context());
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  EXPECT_EQ((*drafter)->target_name(), "Some Model");
  const auto hybrid = make_drafter(path + "+ngram", context());
  ASSERT_TRUE(hybrid.ok()) << hybrid.status().to_string();
  EXPECT_EQ((*hybrid)->target_name(), "Some Model");
  EXPECT_TRUE(make_drafter(folder_.file("drafter"), context()).ok());  // a folder has none
}

TEST(TargetNames, TellOtherModelsApartAndNothingElse) {
  const char* const kCoder = "Qwen2.5 Coder 0.5B Instruct AWQ";
  const char* const kSmol = "Smollm2 135M 8k Lc100K Mix1 Ep2";
  for (const char* name :
       {kCoder, "qwen2.5-coder-0.5b-instruct", "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        "/models/Qwen2.5-Coder-0.5B/", "model", "", "7ae557604adf67be50417f59c2c2f167def9a775"}) {
    EXPECT_FALSE(names_another_model(kCoder, name)) << name;
    EXPECT_FALSE(names_another_model(name, kCoder)) << name;
  }
  for (const char* name : {kSmol, "SmolLM2 135M Instruct", "SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"}) {
    EXPECT_FALSE(names_another_model(kSmol, name)) << name;
  }
  for (const char* name : {"Qwen2.5 0.5B Instruct", "Qwen2.5-Math-0.5B", "Qwen2 0.5B Instruct", kSmol,
                           "Llama 3.2 0.5B Instruct"}) {
    EXPECT_TRUE(names_another_model(kCoder, name)) << name;
    EXPECT_TRUE(names_another_model(name, kCoder)) << name;
  }
  EXPECT_TRUE(names_another_model("Gemma 3 1B It", "Llama 3 1B It"));
}

}  // namespace
}  // namespace dspark
