// Exchanges between producer and connection; keys; rates; helpers of HTTP.
#include "server/exchange.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "server/access.h"
#include "server/http_text.h"

namespace dspark {
namespace {

HttpRequest request() {
  HttpRequest out;
  out.method = "GET";
  out.headers = {{"a", "1"}};
  return out;
}

TEST(Exchange, WholeAnswer) {
  Exchange exchange(request(), 100);
  int notified = 0;
  exchange.set_notify([&] { ++notified; });
  EXPECT_FALSE(exchange.take().has_head);
  HttpResponse response;
  response.body = "x";
  exchange.respond(response);
  exchange.respond(response);  // the second is not heard
  EXPECT_EQ(notified, 1);
  const Exchange::Taken taken = exchange.take();
  EXPECT_TRUE(taken.has_head && taken.done);
  EXPECT_FALSE(taken.streamed);
  EXPECT_EQ(taken.head.body, "x");
}

TEST(Exchange, BodiesOfLaterAreWrittenByTheTaker) {
  Exchange exchange(request(), 100);
  int written = 0;
  HttpResponse response;
  response.write_body = [&written] {
    ++written;
    return std::string("xy");
  };
  exchange.respond(std::move(response));
  EXPECT_EQ(written, 0);
  const Exchange::Taken taken = exchange.take();
  EXPECT_EQ(taken.head.body, "xy");
  EXPECT_FALSE(taken.head.write_body);
  EXPECT_FALSE(exchange.take().has_head);
  EXPECT_EQ(written, 1);
}

TEST(Exchange, NotifiesOncePerTake) {
  Exchange exchange(request(), 100);
  int notified = 0;
  exchange.set_notify([&] { ++notified; });
  exchange.begin_stream({});
  EXPECT_TRUE(exchange.write("ab"));
  EXPECT_TRUE(exchange.write("cd"));
  EXPECT_EQ(notified, 1);
  EXPECT_EQ(exchange.take().data, "abcd");
  EXPECT_TRUE(exchange.write("e"));
  exchange.end();
  EXPECT_EQ(notified, 2);
  const Exchange::Taken taken = exchange.take();
  EXPECT_EQ(taken.data, "e");
  EXPECT_TRUE(taken.done);
}

TEST(Exchange, FullWhileMoreThanHalfOfTheBufferWaits) {
  Exchange exchange(request(), 10);
  int drained = 0;
  exchange.on_drained([&] {
    EXPECT_FALSE(exchange.full());  // may be asked: the lock is free
    ++drained;
  });
  exchange.begin_stream({});
  EXPECT_TRUE(exchange.write("12345"));
  EXPECT_FALSE(exchange.full());
  EXPECT_EQ(exchange.take().data, "12345");
  EXPECT_EQ(drained, 0);
  EXPECT_TRUE(exchange.write("123456"));
  EXPECT_TRUE(exchange.full());
  EXPECT_TRUE(exchange.write(std::string(100, 'x')));  // nothing is lost
  const Exchange::Taken taken = exchange.take();
  EXPECT_EQ(taken.data.size(), 106u);
  EXPECT_FALSE(taken.broken);
  EXPECT_FALSE(exchange.full());
  EXPECT_EQ(drained, 1);
  exchange.end();
  EXPECT_TRUE(exchange.take().done);
  EXPECT_EQ(drained, 1);
}

TEST(Exchange, BrokenOffHasNoEnd) {
  Exchange exchange(request(), 10);
  exchange.begin_stream({});
  EXPECT_TRUE(exchange.write("123"));
  exchange.break_off();
  EXPECT_FALSE(exchange.write("4"));
  const Exchange::Taken taken = exchange.take();
  EXPECT_TRUE(taken.broken);
  EXPECT_EQ(taken.data, "");
}

TEST(Exchange, HangUpIsToldOnce) {
  Exchange exchange(request(), 10);
  int aborted = 0;
  exchange.on_abort([&] { ++aborted; });
  exchange.hang_up();
  exchange.hang_up();
  EXPECT_EQ(aborted, 1);
  EXPECT_FALSE(exchange.write("x"));
  exchange.on_abort([&] { ++aborted; });
  EXPECT_EQ(aborted, 2);
  Exchange done(request(), 10);
  done.on_abort([&] { ++aborted; });
  done.respond({});
  done.hang_up();
  EXPECT_EQ(aborted, 2);
}

TEST(Access, Keys) {
  const auto keys = ApiKeys::parse("# comment\n\nalpha\r\n beta \n", "keys.txt");
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  EXPECT_EQ(keys->find("alpha"), 0);
  EXPECT_EQ(keys->find("beta"), 1);
  for (const char* wrong : {"", "alph", "alphaa", "gamma", "Alpha", "# comment"})
    EXPECT_LT(keys->find(wrong), 0);
  EXPECT_FALSE(ApiKeys::parse("", "keys.txt").ok());
  EXPECT_FALSE(ApiKeys::parse("# none\n", "keys.txt").ok());
  const auto blank = ApiKeys::parse("good\nbad key\n", "keys.txt");
  ASSERT_FALSE(blank.ok());
  EXPECT_NE(blank.status().message().find("keys.txt line 2"), std::string::npos) << blank.status().message();
  EXPECT_EQ(key_of("Bearer abc", ""), "abc");
  EXPECT_EQ(key_of("bearer abc", ""), "abc");
  EXPECT_EQ(key_of("Basic abc", ""), "");
  EXPECT_EQ(key_of("", "abc"), "abc");
}

TEST(Access, TrustedProxies) {
  TrustedProxies none;
  EXPECT_EQ(none.client_of("10.0.0.1", "203.0.113.1"), "10.0.0.1");
  EXPECT_EQ(none.client_of("unix", "203.0.113.1"), "unix");

  TrustedProxies proxies;
  for (const char* address : {"10.0.0.1", "::1"}) EXPECT_TRUE(proxies.add(address).ok()) << address;
  EXPECT_EQ(proxies.client_of("10.0.0.1", "203.0.113.1"), "203.0.113.1");
  EXPECT_EQ(proxies.client_of("::ffff:10.0.0.1", "203.0.113.1"), "203.0.113.1");
  EXPECT_EQ(proxies.client_of("::1", "203.0.113.1"), "203.0.113.1");
  EXPECT_EQ(proxies.client_of("10.0.0.2", "203.0.113.1"), "10.0.0.2");  // not trusted
  EXPECT_EQ(proxies.client_of("unix", "203.0.113.1"), "unix");
  EXPECT_EQ(proxies.client_of("10.0.0.1", ""), "10.0.0.1");
  // The client wrote all but the last entry.
  EXPECT_EQ(proxies.client_of("10.0.0.1", "10.0.0.9, unknown,\t203.0.113.2 "), "203.0.113.2");
  // One client, one name.
  EXPECT_EQ(proxies.client_of("10.0.0.1", "2001:DB8:0:0::1"), "2001:db8::1");
  EXPECT_EQ(proxies.client_of("10.0.0.1", "::ffff:203.0.113.1"), "203.0.113.1");
  for (const std::string& malformed :
       {std::string("unknown"), std::string("203.0.113.1:80"), std::string("[2001:db8::1]"), std::string(","),
        std::string("203.0.113.1,"), std::string("203.0.113.256"), std::string("203.0.113.1 x"),
        std::string("unix"), std::string(5000, '1')}) {
    EXPECT_EQ(proxies.client_of("10.0.0.1", malformed), "10.0.0.1") << malformed;
  }
}

TEST(Access, ProxiesOfUnixSocketsAndThoseThatAreNone) {
  TrustedProxies proxies;
  EXPECT_TRUE(proxies.add("unix").ok());
  EXPECT_EQ(proxies.client_of("unix", "203.0.113.1"), "203.0.113.1");
  EXPECT_EQ(proxies.client_of("127.0.0.1", "203.0.113.1"), "127.0.0.1");
  for (const char* wrong : {"", "localhost", "127.0.0.1:80", "10.0.0.0/8", "Unix"}) {
    EXPECT_FALSE(proxies.add(wrong).ok()) << wrong;
  }
  // What could not be read is no peer either.
  EXPECT_EQ(proxies.client_of("", "203.0.113.1"), "");
}

TEST(Access, RateLimit) {
  RateLimiter limiter(60);
  const auto start = RateLimiter::Clock::now();
  int admitted = 0;
  while (admitted < 1000 && limiter.take("a", start) == 0) ++admitted;
  EXPECT_LE(admitted, 60);
  EXPECT_GE(admitted, 1);
  EXPECT_GE(limiter.take("a", start), 1);
  EXPECT_EQ(limiter.take("b", start), 0);  // others are not touched
  EXPECT_EQ(limiter.take("a", start + std::chrono::seconds(2)), 0);
  RateLimiter open(0);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(open.take("a", start), 0);
}

TEST(Access, RateLimitForgetsClients) {
  RateLimiter limiter(60);
  auto now = RateLimiter::Clock::now();
  for (int i = 0; i < 200000; ++i) {
    now += std::chrono::milliseconds(10);
    limiter.take("client" + std::to_string(i), now);
  }
  EXPECT_LT(limiter.n_clients(), 100000u);
}

TEST(HttpText, HeadsAndChunks) {
  HttpResponse response;
  response.body = "abc";
  response.headers = {{"Retry-After", "3"}};
  const std::string whole = response_head(response, {});
  EXPECT_EQ(whole.rfind("HTTP/1.1 200 OK\r\n", 0), 0u);
  EXPECT_NE(whole.find("Content-Length: 3\r\n"), std::string::npos);
  EXPECT_NE(whole.find("Retry-After: 3\r\n"), std::string::npos);
  EXPECT_TRUE(whole.ends_with("\r\n\r\n"));
  const std::string streamed = response_head(response, {.streamed = true, .chunked = true});
  EXPECT_NE(streamed.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(streamed.find("Content-Length"), std::string::npos);
  std::string out;
  append_chunk(out, "", true);  // an empty chunk would end the body
  EXPECT_EQ(out, "");
  append_chunk(out, std::string(17, 'x'), true);
  EXPECT_EQ(to_lower(out), "11\r\n" + std::string(17, 'x') + "\r\n");
}

TEST(HttpText, IdsAndQueries) {
  EXPECT_EQ(make_request_id("abc-1.2_X"), "abc-1.2_X");
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\r\nSet-Cookie: x"),
                                 std::string("a\"b"), std::string(5000, 'a')}) {
    const std::string id = make_request_id(bad);
    EXPECT_NE(id, bad);
    EXPECT_GE(id.size(), 8u);
  }
  EXPECT_NE(make_request_id(""), make_request_id(""));
  EXPECT_EQ(query_value("a=1&model=x%2Fy+z&b=", "model"), "x/y z");
  EXPECT_EQ(query_value("a=1&model=x", "b"), "");
  EXPECT_EQ(path_decoded("a%2Fb+c%20d%"), "a/b+c d%");
  EXPECT_EQ(query_value("a=%4", "a"), "%4");
  EXPECT_EQ(query_value("a=%zz", "a"), "%zz");
}

}  // namespace
}  // namespace dspark
