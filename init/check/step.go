package check

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"allotment/image"
)

// mostAnswer is how much of an answer is searched for what it must contain, in bytes.
const mostAnswer = 1 << 20

// Step is what a step of a journey asks the module at that address; nil if the step is a task. Secrets are the module's.
func Step(s image.Step, at netip.Addr, secrets func(name string) (string, error)) Question {
	address := func(port int) string { return net.JoinHostPort(at.String(), strconv.Itoa(port)) }
	switch {
	case s.HTTP != nil:
		return func(ctx context.Context) error { return request(ctx, *s.HTTP, address(s.HTTP.Port), secrets) }
	case s.LDAP != nil:
		return func(ctx context.Context) error { return search(ctx, *s.LDAP, address(s.LDAP.Port), secrets) }
	case s.TCP != 0:
		return func(ctx context.Context) error { return askTCP(ctx, address(s.TCP)) }
	}
	return nil
}

// request makes the request and looks at its answer; a redirection is an answer and is not followed.
func request(ctx context.Context, q image.Request, address string, secrets func(string) (string, error)) error {
	r, err := http.NewRequestWithContext(ctx, cmp.Or(q.Method, "GET"), "http://"+address+q.Path, strings.NewReader(q.Body))
	if err != nil {
		return err
	}
	for _, h := range q.Headers {
		name, value, _ := strings.Cut(h, ":")
		if strings.EqualFold(name, "Host") { // which net/http keeps elsewhere
			r.Host = strings.TrimSpace(value)
			continue
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	if q.User != "" {
		password, err := secrets(q.Secret)
		if err != nil {
			return err
		}
		r.SetBasicAuth(q.User, password)
	}
	t := &http.Transport{DisableKeepAlives: true}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	good := slices.Contains(q.Status, resp.StatusCode)
	if len(q.Status) == 0 {
		good = resp.StatusCode >= 200 && resp.StatusCode <= 299
	}
	if !good {
		return errors.New("it answers " + resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return fmt.Errorf("its answer breaks off: %w", err)
	}
	if !bytes.Contains(body, []byte(q.Contains)) {
		return fmt.Errorf("its answer does not contain %q", q.Contains)
	}
	return nil
}

// search binds and counts what is found.
func search(ctx context.Context, q image.LDAPRequest, address string, secrets func(string) (string, error)) error {
	l, err := dialLDAP(ctx, address)
	if err != nil {
		return err
	}
	defer l.Close()
	if q.DN == "" {
		err = l.UnauthenticatedBind("")
	} else {
		var password string
		if password, err = secrets(q.Secret); err != nil {
			return err
		}
		err = l.Bind(q.DN, password)
	}
	if err != nil {
		return err
	}
	// The size limit is one more than needed: a server that has more says so, and that is as good.
	found, err := l.Search(ldap.NewSearchRequest(q.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, q.Least+1, 0, false,
		q.Filter, []string{"1.1"}, nil))
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return err
	}
	if n := len(found.Entries); n < q.Least {
		return fmt.Errorf("%d entries were found, not %d or more", n, q.Least)
	}
	return nil
}
