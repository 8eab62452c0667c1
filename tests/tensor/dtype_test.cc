#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace dspark {
namespace {

TEST(DType, NamesAndIdsRoundTrip) {
  std::set<std::string> names;
  int known = 0;
  for (uint32_t id = 0; id < 2000; ++id) {
    const DTypeInfo* info = dtype_info(static_cast<DType>(id));
    if (info == nullptr) continue;
    ++known;
    EXPECT_EQ(static_cast<uint32_t>(info->dtype), id);
    EXPECT_TRUE(names.insert(info->name).second) << info->name << " is listed twice";
    EXPECT_EQ(dtype_from_name(info->name), info->dtype);
    EXPECT_GT(info->block_elements, 0);
    EXPECT_GT(info->block_bytes, 0);
    EXPECT_EQ(dtype_row_bytes(info->dtype, 3 * info->block_elements),
              3u * static_cast<size_t>(info->block_bytes));
    EXPECT_EQ(dtype_from_ggml_id(id).has_value(), id < 1000);
  }
  EXPECT_EQ(known, 42);
}

TEST(DType, NamesIgnoreCase) {
  EXPECT_EQ(dtype_from_name("q4_k"), DType::kQ4_K);
  EXPECT_EQ(dtype_from_name("bf16"), DType::kBF16);
  EXPECT_FALSE(dtype_from_name("q4_k_m").has_value());
  EXPECT_FALSE(dtype_from_name("").has_value());
}

TEST(DType, RemovedAndUnknownIdsAreRefused) {
  for (uint32_t id : {4u, 5u, 31u, 36u, 42u, 999u, 1000u, 0xffffffffu}) {
    EXPECT_FALSE(dtype_from_ggml_id(id).has_value()) << id;
  }
  EXPECT_STREQ(dtype_name(static_cast<DType>(4)), "?");
}

}  // namespace
}  // namespace dspark
