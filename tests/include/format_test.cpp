#include "modalkv/format.hpp"

#include <gtest/gtest.h>

#include <string>

#include "modalkv/model.hpp"
#include "modalkv/page.hpp"

namespace modalkv {
namespace {

struct VectorSize {
  const char* name;
  ElementFormat format;
  Bytes payload;   // of 128 elements
  Bytes metadata;  // of scales and zero points
};

const VectorSize kVectors[] = {
    {"FP16", fp16(), 256, 0},
    {"BF16", bf16(), 256, 0},
    {"FP8 E4M3", fp8_e4m3(), 128, 0},
    {"INT8 token-head", int8_token_head(), 128, 4},
    {"INT4 token-head", int4_token_head(), 64, 4},
    {"INT4 g128", int4_grouped(128), 64, 4},
    {"INT4 g64", int4_grouped(64), 64, 8},
    {"INT4 g32", int4_grouped(32), 64, 16},
    {"NVFP4", nvfp4(), 64, 8},
    {"MXFP4", mxfp4(), 64, 4},
    {"INT2 g32", int2_grouped(32), 32, 16},
    {"INT2 g64", int2_grouped(64), 32, 8},
    {"INT2 g128", int2_grouped(128), 32, 4},
};

TEST(Format, BytesOfAVectorAreItsElementsAndItsGroups) {
  for (const VectorSize& expected : kVectors) {
    SCOPED_TRACE(expected.name);
    EXPECT_EQ(payload_bytes(expected.format, 128), expected.payload);
    EXPECT_EQ(metadata_bytes(expected.format, 128), expected.metadata);
  }
}

TEST(Format, KeyAndValueCountIndependently) {
  for (const VectorSize& key : kVectors)
    for (const VectorSize& value : kVectors) {
      SCOPED_TRACE(std::string(key.name) + " K, " + value.name + " V");
      const KvFormat format{key.format, value.format};
      EXPECT_EQ(token_head_bytes(format, 128),
                key.payload + key.metadata + value.payload + value.metadata);
      EXPECT_EQ(is_16bit(format), key.payload == 256 && value.payload == 256);
    }
}

// Bytes of K and V of a token and KV head of 128; times smaller than 16 bits, alone and where 10 %
// of the tokens stay in 16 bits.
TEST(Format, CompressesAsPublished) {
  const struct {
    const char* name;
    KvFormat format;
    Bytes bytes;
    double alone, with_budget;
  } kTable[] = {
      {"FP16", both(fp16()), 512, 1.00, 1.00},
      {"FP8", both(fp8_e4m3()), 256, 2.00, 1.82},
      {"INT8", both(int8_token_head()), 264, 1.94, 1.77},
      {"INT8 K, INT4 V", {int8_token_head(), int4_token_head()}, 200, 2.56, 2.21},
      {"INT4", both(int4_token_head()), 136, 3.76, 2.95},
      {"INT4 g128", both(int4_grouped(128)), 136, 3.76, 2.95},
      {"INT4 g64", both(int4_grouped(64)), 144, 3.56, 2.83},
      {"NVFP4", both(nvfp4()), 144, 3.56, 2.83},
      {"INT4 g32", both(int4_grouped(32)), 160, 3.20, 2.62},
      {"MXFP4", both(mxfp4()), 136, 3.76, 2.95},
      {"INT2 g32", both(int2_grouped(32)), 96, 5.33, 3.72},
      {"INT2 g64", both(int2_grouped(64)), 80, 6.40, 4.16},
      {"INT2 g128", both(int2_grouped(128)), 72, 7.11, 4.41},
  };
  for (const auto& row : kTable) {
    SCOPED_TRACE(row.name);
    const Bytes bytes = token_head_bytes(row.format, 128);
    EXPECT_EQ(bytes, row.bytes);
    const auto ratio = static_cast<double>(bytes) / 512;
    EXPECT_NEAR(1 / ratio, row.alone, 0.0051);
    EXPECT_NEAR(1 / (0.1 + 0.9 * ratio), row.with_budget, 0.0051);
    EXPECT_DOUBLE_EQ(bits_per_element(row.format, 128), 16 * ratio);
  }
}

TEST(Format, OtherHeadSizesRoundUpToWholeBytesAndGroups) {
  EXPECT_EQ(vector_bytes(fp16(), 80), 160);
  EXPECT_EQ(vector_bytes(int8_token_head(), 96), 96 + 4);
  EXPECT_EQ(vector_bytes(int4_token_head(), 80), 40 + 4) << "one group, whatever the head";
  EXPECT_EQ(vector_bytes(int4_token_head(), 256), 128 + 4);
  EXPECT_EQ(vector_bytes(int4_grouped(64), 80), 40 + 2 * 4) << "the second group is not full";
  EXPECT_EQ(vector_bytes(int4_grouped(128), 64), 32 + 4);
  EXPECT_EQ(vector_bytes(int2_grouped(64), 65), 17 + 2 * 4);
  EXPECT_EQ(vector_bytes(nvfp4(), 80), 40 + 5);
  EXPECT_EQ(vector_bytes(mxfp4(), 80), 40 + 3);
  EXPECT_EQ(vector_bytes(int2_grouped(128), 256), 64 + 2 * 4);
}

TEST(Format, NamesAreTheirOwn) {
  EXPECT_EQ(name(NumberFormat::fp8_e4m3), "fp8-e4m3");
  EXPECT_EQ(name(NumberFormat::int2), "int2");
  EXPECT_EQ(name(NumberFormat::mxfp4), "mxfp4");
  EXPECT_EQ(payload_bits(NumberFormat::bf16), 16);
  EXPECT_EQ(payload_bits(NumberFormat::nvfp4), 4);
}

TEST(Page, HoldsItsTokensAndATrailerInWholeLines) {
  const PageShape high{.tokens = 16, .kv_heads = 4, .head_dim = 128};
  EXPECT_EQ(page_bytes(high), 32 * 1024 + 64);
  PageShape low = high;
  low.format = both(int4_token_head());
  EXPECT_EQ(page_bytes(low), 16 * 4 * 136 + 64);
  const PageShape odd{
      .tokens = 1, .kv_heads = 1, .head_dim = 80, .format = {int8_token_head(), fp16()}};
  EXPECT_EQ(page_bytes(odd), 320) << "80 + 4 + 160 + 64 in lines of 64";
  for (const VectorSize& key : kVectors)
    for (const int head_dim : {64, 80, 96, 128, 256}) {
      const PageShape shape{
          .tokens = 16, .kv_heads = 8, .head_dim = head_dim, .format = {key.format, fp16()}};
      const Bytes used = 16 * 8 * token_head_bytes(shape.format, head_dim) + 64;
      EXPECT_EQ(page_bytes(shape) % 64, 0);
      EXPECT_GE(page_bytes(shape), used);
      EXPECT_LT(page_bytes(shape), used + 64);
    }
}

TEST(Page, PerChannelMetadataBelongsToThePage) {
  ElementFormat key = int4_token_head();
  key.per_channel = true;
  EXPECT_EQ(metadata_bytes(key, 128), 0);
  PageShape shape{.tokens = 64, .kv_heads = 4, .head_dim = 128, .format = {key, int4_token_head()}};
  EXPECT_EQ(page_metadata_bytes(key, shape), 4 * 128 * 4) << "one group of all tokens a channel";
  EXPECT_EQ(page_metadata_bytes(shape.format.value, shape), 64 * 4 * 4);
  EXPECT_EQ(page_bytes(shape), 64 * 4 * (64 + 64) + 4 * 128 * 4 + 64 * 4 * 4 + 64);
  key.group = 32;
  EXPECT_EQ(page_metadata_bytes(key, shape), 2 * 4 * 128 * 4);
  shape.tokens = 33;
  EXPECT_EQ(page_metadata_bytes(key, shape), 2 * 4 * 128 * 4) << "the second group is not full";
}

TEST(Model, KvBytesPerTokenAsPublished) {
  const struct {
    int layers, kv_heads;
    Bytes bytes;
  } kModels[] = {{32, 32, 524'288}, {40, 40, 819'200}, {60, 8, 245'760},
                 {28, 4, 57'344},   {80, 8, 327'680},  {36, 8, 147'456}};
  for (const auto& expected : kModels) {
    ModelGeometry model;
    model.layers = expected.layers;
    model.kv_heads = expected.kv_heads;
    EXPECT_EQ(kv_bytes_per_token(model, both(fp16())), expected.bytes);
  }
}

}  // namespace
}  // namespace modalkv
