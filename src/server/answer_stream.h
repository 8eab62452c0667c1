#pragma once
// Answers in the words of each interface: the events of a stream, and whole bodies.

#include <memory>
#include <string>
#include <vector>

#include "server/completion_writer.h"

namespace dspark {

/// Writes the events of one streamed answer. Each call returns bytes for the stream, maybe none.
class AnswerStream {
 public:
  virtual ~AnswerStream() = default;
  virtual std::string piece(const AnswerPiece& piece) = 0;
  /// include_usage: of stream_options; the other interfaces always tell.
  virtual std::string end(const UsageCounts& usage, bool include_usage) = 0;
  virtual std::string error(const ApiError& error) = 0;
};

std::unique_ptr<AnswerStream> make_answer_stream(const AnswerHead& head);
/// The whole answer as the interface of head.kind wants it.
std::string write_whole(const AnswerHead& head, const std::vector<AnswerPiece>& choices,
                        const UsageCounts& usage);

// Of the two interfaces with state of their own.
std::unique_ptr<AnswerStream> make_responses_stream(const AnswerHead& head);
std::unique_ptr<AnswerStream> make_messages_stream(const AnswerHead& head);
std::string write_response(const AnswerHead& head, const AnswerPiece& piece, const UsageCounts& usage);
std::string write_message(const AnswerHead& head, const AnswerPiece& piece, const UsageCounts& usage);

/// Adds `more` to `sum`: texts joined, parts of tool calls too.
void join_pieces(AnswerPiece& sum, AnswerPiece more);

}  // namespace dspark
