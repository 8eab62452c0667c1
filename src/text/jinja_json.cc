#include "text/jinja_json.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "text/jinja_builtins.h"
#include "text/jinja_error.h"
#include "text/jinja_ops.h"
#include "text/jinja_unicode.h"
#include "text/utf8.h"

namespace dspark::jinja {
namespace {

using Json = nlohmann::ordered_json;

Value convert(Heap& heap, const Json& json, int depth) {
  if (depth > heap.limits().max_value_depth) heap.too_much("nesting of JSON");
  heap.work();
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      return Value::integer(static_cast<Int>(json.get<uint64_t>()));
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      return heap.string(is_valid_utf8(text) ? text : to_valid_utf8(text));
    }
    case Json::value_t::array: {
      heap.check_items(json.size());
      Values items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(convert(heap, item, depth + 1));
      return heap.list(std::move(items));
    }
    case Json::value_t::object: {
      heap.check_items(json.size());
      std::vector<DictObj::Entry> entries;
      entries.reserve(json.size());
      for (const auto& [key, value] : json.items()) {
        Value name = heap.string(is_valid_utf8(key) ? key : to_valid_utf8(key));
        entries.emplace_back(std::move(name), convert(heap, value, depth + 1));
      }
      return make_dict(heap, entries);  // repaired keys may coincide
    }
    default:
      return Value::none();
  }
}

// The writer of tojson: json.dumps of Python.
class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style) : out_(heap), style_(style) {}
  void write(const Value& v);
  std::string take() { return out_.take(); }

 private:
  void write_string(std::string_view s);
  void write_escape(uint32_t unit);
  void write_items(const Values& items);
  void write_dict(const DictObj& dict);
  void write_key(const Value& key);
  void newline();

  TextBuilder out_;
  const JsonStyle& style_;
  int depth_ = 0;
};

std::string json_number(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return float_repr(d);
}

void JsonWriter::write_escape(uint32_t unit) {
  char buffer[8];
  std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned>(unit & 0xFFFF));
  out_.add(buffer);
}

void JsonWriter::write_string(std::string_view s) {
  constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
  out_.add('"');
  size_t plain = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t start = pos;
    const uint32_t c = next_code_point(s, pos);
    const size_t special = c < 0x80 ? kSpecial.find(static_cast<char>(c)) : std::string_view::npos;
    const bool ascii_escape = style_.ensure_ascii && c >= 0x7F + 1;
    if (special == std::string_view::npos && c >= 0x20 && !ascii_escape) continue;
    out_.add(s.substr(plain, start - plain));
    plain = pos;
    if (special != std::string_view::npos) {
      out_.add('\\');
      out_.add(kLetters[special]);
    } else if (c >= 0x10000) {
      write_escape(0xD800 + ((c - 0x10000) >> 10));
      write_escape(0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      write_escape(c);
    }
  }
  out_.add(s.substr(plain));
  out_.add('"');
}

void JsonWriter::newline() {
  if (!style_.pretty) return;
  out_.add('\n');
  for (int i = 0; i < depth_; ++i) out_.add(style_.indent);
}

void JsonWriter::write_items(const Values& items) {
  if (items.empty()) return out_.add("[]");
  out_.add('[');
  ++depth_;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out_.add(style_.item_separator);
    newline();
    write(items[i]);
  }
  --depth_;
  newline();
  out_.add(']');
}

void JsonWriter::write_key(const Value& key) {
  switch (key.kind()) {
    case Kind::kString:
      return write_string(key.str());
    case Kind::kNone:
      return out_.add("\"null\"");
    case Kind::kBool:
      return out_.add(key.as_int() != 0 ? "\"true\"" : "\"false\"");
    case Kind::kInt:
      return out_.add("\"" + int_text(key.as_int()) + "\"");
    case Kind::kFloat:
      return out_.add("\"" + json_number(key.as_double()) + "\"");
    default:
      type_error(std::string("keys must be str, int, float, bool or None, not ") + type_name(key));
  }
}

void JsonWriter::write_dict(const DictObj& dict) {
  if (dict.entries.empty()) return out_.add("{}");
  Values order, keys;
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    order.push_back(Value::integer(static_cast<Int>(i)));
    keys.push_back(dict.entries[i].first);
  }
  if (style_.sort_keys) order = sort_by(out_.heap(), keys, order, false);
  out_.add('{');
  ++depth_;
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& [key, value] = dict.entries[static_cast<size_t>(order[i].as_int())];
    if (i > 0) out_.add(style_.item_separator);
    newline();
    write_key(key);
    out_.add(style_.key_separator);
    write(value);
  }
  --depth_;
  newline();
  out_.add('}');
}

void JsonWriter::write(const Value& v) {
  out_.heap().work();
  switch (v.kind()) {
    case Kind::kNone:
      return out_.add("null");
    case Kind::kBool:
      return out_.add(v.as_int() != 0 ? "true" : "false");
    case Kind::kInt:
      return out_.add(int_text(v.as_int()));
    case Kind::kFloat:
      return out_.add(json_number(v.as_double()));
    case Kind::kString:
      return write_string(v.str());
    case Kind::kList:
    case Kind::kTuple:
      return write_items(v.items());
    case Kind::kDict:
      return write_dict(v.dict());
    default:
      type_error(std::string("Object of type ") + type_name(v) + " is not JSON serializable");
  }
}

// Builds values straight from the parser's events: nlohmann's ordered objects take quadratic time to fill.
class JsonReader {
 public:
  explicit JsonReader(Heap& heap) : heap_(heap) {}
  Value take() { return std::move(result_); }

  bool null() { return put(Value::none()); }
  bool boolean(bool b) { return put(Value::boolean(b)); }
  bool number_integer(Json::number_integer_t i) { return put(Value::integer(i)); }
  bool number_unsigned(Json::number_unsigned_t u) { return put(Value::integer(static_cast<Int>(u))); }
  bool number_float(Json::number_float_t d, const std::string&) { return put(Value::real(d)); }
  bool string(std::string& s) { return put(heap_.string(std::move(s))); }
  bool binary(Json::binary_t&) { return false; }
  bool key(std::string& s) {
    open_.back().keys.push_back(heap_.string(std::move(s)));
    return true;
  }
  bool start_object(size_t) { return open(); }
  bool start_array(size_t) { return open(); }
  bool end_array() {
    Values items = std::move(open_.back().values);
    open_.pop_back();
    return put(heap_.list(std::move(items)));
  }
  bool end_object() {
    Open done = std::move(open_.back());
    open_.pop_back();
    std::vector<DictObj::Entry> entries;
    for (size_t i = 0; i < done.keys.size(); ++i) entries.emplace_back(done.keys[i], done.values[i]);
    return put(make_dict(heap_, entries));
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    fail(ErrorKind::kValue, "from_json: the text is not JSON (at byte " + std::to_string(position) + ")");
  }

 private:
  struct Open {
    Values keys, values;
  };
  bool open() {
    if (static_cast<int>(open_.size()) >= heap_.limits().max_value_depth) heap_.too_much("nesting of JSON");
    open_.emplace_back();
    return true;
  }
  bool put(Value v) {
    if (open_.empty()) {
      result_ = std::move(v);
      return true;
    }
    Values& values = open_.back().values;
    if (values.size() >= heap_.limits().max_items) heap_.too_much("list length");
    heap_.work();
    values.push_back(std::move(v));
    return true;
  }

  Heap& heap_;
  std::vector<Open> open_;
  Value result_;
};

}  // namespace

Value value_of_json(Heap& heap, const nlohmann::ordered_json& json) {
  return convert(heap, json, 0);
}

std::string to_json(Heap& heap, const Value& v, const JsonStyle& style) {
  JsonWriter writer(heap, style);
  writer.write(v);
  return writer.take();
}

Value from_json(Heap& heap, std::string_view text) {
  heap.work_bytes(text.size());
  JsonReader reader(heap);
  if (!Json::sax_parse(text, &reader)) fail(ErrorKind::kValue, "from_json: the text is not JSON");
  return reader.take();
}

}  // namespace dspark::jinja
