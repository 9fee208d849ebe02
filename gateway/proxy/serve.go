package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// goodbye bounds how long requests under way may go on at the end.
const goodbye = 5 * time.Second

// Sockets are what the gateway listens on. All but Plain may be nil, and are not used without a folder for certificates.
type Sockets struct {
	Plain net.Listener   // for HTTP
	TLS   net.Listener   // for HTTP/1.1 and 2
	QUIC  net.PacketConn // for HTTP/3
}

// Serve answers requests until ctx ends, then ends when those under way are done. It may be called once.
func (g *Gateway) Serve(ctx context.Context, s Sockets) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	start := func(what string, serve func() error) {
		group.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	plain, secure := g.Server(), g.Server()
	var third *http3.Server
	if g.keeper != nil {
		secure.TLSConfig = g.tlsConfig()
		start("certificates", func() error { g.keeper.Run(ctx); return nil })
		if s.QUIC != nil {
			third = g.quicServer(s.QUIC)
			start("HTTP/3", func() error { return g.serveQUIC(third, s.QUIC) })
		}
		if s.TLS != nil {
			start("HTTPS", func() error { return secure.ServeTLS(g.Limit(s.TLS), "", "") })
		}
	}
	start("HTTP", func() error { return plain.Serve(g.Limit(s.Plain)) })
	<-ctx.Done()
	end, stop := context.WithTimeout(context.Background(), goodbye)
	defer stop()
	shutDown(end, plain, secure, third)
	group.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// shutDown ends all servers at the same time.
func shutDown(ctx context.Context, plain, secure *http.Server, third *http3.Server) {
	var group sync.WaitGroup
	for _, s := range []*http.Server{plain, secure} {
		group.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close()
			}
		})
	}
	if third != nil {
		group.Go(func() {
			third.Shutdown(ctx)
			third.Close()
		})
	}
	group.Wait()
}

// tlsConfig is for HTTP/1.1 and 2, and for authorities' challenges, which get nothing else (RFC 8737, section 3).
func (g *Gateway) tlsConfig() *tls.Config {
	challenge := &tls.Config{
		GetCertificate: g.keeper.Certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol},
	}
	return &tls.Config{
		GetCertificate: g.keeper.Certificate, MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol {
				return challenge, nil
			}
			return nil, nil
		},
	}
}

// quicServer is for HTTP/3. Its bounds keep what one connection can hold to half a megabyte.
func (g *Gateway) quicServer(c net.PacketConn) *http3.Server {
	if _, port, err := net.SplitHostPort(c.LocalAddr().String()); err == nil {
		g.quicPort = port
	}
	return &http3.Server{Handler: g, MaxHeaderBytes: g.limits.HeaderBytes, IdleTimeout: g.limits.Idle}
}

func (g *Gateway) serveQUIC(s *http3.Server, c net.PacketConn) error {
	transport := &quic.Transport{
		Conn: c,
		// A round trip more, and nobody can make the gateway hold anything in the name of another address (RFC 9000,
		// section 8.1.2).
		VerifySourceAddress: func(net.Addr) bool { return true },
		ConnContext: func(ctx context.Context, i *quic.ClientInfo) (context.Context, error) {
			leave, ok := g.open.Enter(i.RemoteAddr)
			if !ok {
				return ctx, errors.New("too many connections")
			}
			context.AfterFunc(ctx, leave)
			return ctx, nil
		},
	}
	defer transport.Close()
	config := http3.ConfigureTLSConfig(&tls.Config{GetCertificate: g.keeper.Certificate, MinVersion: tls.VersionTLS13})
	l, err := transport.Listen(config, &quic.Config{
		HandshakeIdleTimeout: g.limits.Header, MaxIdleTimeout: g.limits.Idle,
		MaxIncomingStreams: int64(g.limits.Streams), MaxIncomingUniStreams: 8,
		InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: 256 << 10,
		InitialConnectionReceiveWindow: 128 << 10, MaxConnectionReceiveWindow: 512 << 10,
	})
	if err != nil {
		return err
	}
	return s.ServeListener(l)
}
