// Package web_test asks the real WordPress of the module, with the real MariaDB. PHP's own web server stands for PHP-FPM
// and nginx, which qemu-tests use.
package web_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"allotment/init/render"
	"allotment/modules/moduletest"
)

func TestMain(m *testing.M) { moduletest.Main(m) }

// site is a running web site.
type site struct {
	*moduletest.Module
	t   *testing.T
	box *moduletest.Box
	web string // address of PHP's web server
}

// newSite makes the database and installs WordPress, as the migrations do, for an organisation with these settings.
func newSite(t *testing.T, edit func(*render.Data)) *site {
	t.Helper()
	s := &site{t: t, box: moduletest.New(t, "web"), web: moduletest.FreeAddress(t)}
	s.Module = s.box.Unpack("web", edit)
	database := moduletest.FreeAddress(t)
	port := database[strings.LastIndexByte(database, ':')+1:]
	s.exchange("/etc/mysql/my.cnf", "port = 3306", "port = "+port+"\nuser = root")
	s.exchange("/run/config/wp-config.php", "define('DB_HOST', '127.0.0.1');", "define('DB_HOST', '"+database+"');")
	s.exchange("/run/config/admin.cnf", "protocol = tcp", "protocol = tcp\nport = "+port)
	s.mustRun("make-database")
	s.Start(database, "/usr/sbin/mariadbd", "--init-file=/run/config/accounts.sql")
	s.mustRun("install")
	// What nginx says of a request that comes from the gateway.
	s.Write("/run/config/nginx.php", []byte(`<?php $_SERVER['ALLOTMENT_GATEWAY'] = $_SERVER['HTTP_TEST_GATEWAY'] ?? '0';`))
	s.Start(s.web, "/usr/bin/php8.4", "-S", s.web, "-t", "/usr/share/wordpress", "-d", "opcache.enable_cli=1",
		"-d", "auto_prepend_file=/run/config/nginx.php")
	return s
}

// exchange replaces a text that stands once in a file.
func (s *site) exchange(file, old, new string) {
	s.t.Helper()
	text := string(s.Read(file))
	if strings.Count(text, old) != 1 {
		s.t.Fatalf("%s does not have %q just once", file, old)
	}
	s.Write(file, []byte(strings.Replace(text, old, new, 1)))
}

func (s *site) run(task string) error {
	_, err := s.Run("/usr/bin/php8.4", "/usr/lib/allotment/"+task+".php")
	return err
}

func (s *site) mustRun(task string) {
	s.t.Helper()
	if err := s.run(task); err != nil {
		s.t.Fatal(err)
	}
}

// php runs code within WordPress and returns what it prints.
func (s *site) php(code string) string {
	s.t.Helper()
	out, err := s.Run("/usr/bin/php8.4", "-r", "require '/usr/lib/allotment/wordpress.php';"+code)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// get asks for a path under a host name.
func (s *site) get(host, path string) string {
	s.t.Helper()
	_, body := s.ask(http.MethodGet, path, "", http.Header{"Host": {host}})
	return body
}

// ask makes a request and returns the answer's status, and where it leads with its body.
func (s *site) ask(method, path, body string, header http.Header) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.web+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Host, r.Header = header.Get("Host"), header
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Location") + string(b)
}

func TestSite(t *testing.T) {
	s := newSite(t, func(d *render.Data) {
		d.Organisation.Language = "de"
		d.Settings["tagline"] = `Seit 1923 "& immer' grün`
	})
	domain := moduletest.Organisation.Domain
	page := s.get(domain, "/")
	for _, want := range []string{`lang="de-DE"`, "Hallo Welt", moduletest.Organisation.Name, "http://" + domain + "/"} {
		if !strings.Contains(page, want) {
			t.Errorf("the front page has no %q", want)
		}
	}
	if page := s.get("evil.example", "/"); strings.Contains(page, "evil.example/") {
		t.Error("a page bears the name that a visitor made up")
	}
	if got := s.php(`echo get_option('blogdescription'), '|', get_option('default_comment_status');`); got != `Seit 1923 "& immer' grün|closed` {
		t.Errorf("WordPress sees the settings %q", got)
	}
	if got := s.php(`echo wp_remote_get('http://127.0.0.1/')->get_error_code();`); got != "http_request_blocked" {
		t.Errorf("a request of WordPress ended with %q", got)
	}
	if got := s.php(`echo current_user_can('install_plugins') || user_can(1, 'install_plugins') ? 'may' : 'may not';`); got != "may not" {
		t.Errorf("the administrator %s install plugins", got)
	}
	if got := s.php(`require ABSPATH . 'wp-admin/includes/admin.php'; echo get_avatar(1), count_users()['total_users'];`); got != "1" {
		t.Errorf("WordPress shows the picture %q", got)
	}
	save := `wp_set_current_user(1); $_POST = ['email' => '', 'nickname' => 'n', 'display_name' => 'N'];
		require_once ABSPATH . 'wp-admin/includes/admin.php'; $r = edit_user(1); echo is_wp_error($r) ? implode(' ', $r->get_error_codes()) : 'saved';`
	if got := s.php(save); got != "saved" {
		t.Errorf("a profile without an address ends with %q", got)
	}
	s.mustRun("install") // again
	if got := s.php(`echo count(get_posts());`); got != "1" {
		t.Errorf("after another installation there are %s posts", got)
	}

	s.php(`wp_set_password('forgotten', 1);`)
	s.mustRun("reset-administrator")
	if got := s.php(`echo get_class(wp_authenticate('admin', administrator()));`); got != "WP_User" {
		t.Errorf("the administrator logs in: %s", got)
	}
}

// TestNameUntilThereIsADomain: the box answers under any name, but only under names.
func TestNameUntilThereIsADomain(t *testing.T) {
	s := newSite(t, func(d *render.Data) { d.Organisation.Domain = "allotment.internal" })
	if page := s.get("192.0.2.7:8080", "/"); !strings.Contains(page, "http://192.0.2.7:8080/") {
		t.Error("a page does not bear the name that the visitor used")
	}
	if page := s.get("x<b", "/"); strings.Contains(page, "//x") {
		t.Error("a page bears what is no name")
	}
}

func TestBackup(t *testing.T) {
	s := newSite(t, nil)
	client := func(program string, args ...string) {
		t.Helper()
		if out, err := s.Run(append([]string{"/usr/bin/" + program, "--defaults-file=/run/config/admin.cnf"}, args...)...); err != nil {
			t.Fatal(out, err)
		}
	}
	const dump = "/var/lib/dump/wordpress.sql"
	client("mariadb-dump", "--single-transaction", "--result-file="+dump, "wordpress")
	s.mustRun("verify-dump")
	s.php(`wp_delete_post(1, true);`)
	client("mariadb", "--execute=source "+dump, "wordpress")
	s.mustRun("verify-content")
	if got := s.php(`echo get_post(1)->ID ?? 'none';`); got != "1" {
		t.Errorf("after the restore post 1 is %s", got)
	}

	whole := s.Read(dump)
	s.Write(dump, slices.Clone(whole[:len(whole)-100]))
	if s.run("verify-dump") == nil {
		t.Error("half a dump was taken for a whole one")
	}
	s.php(`update_attached_file(wp_insert_attachment(['post_title' => 'fair', 'post_mime_type' => 'image/png']), '2026/11/fair.png');`)
	if s.run("verify-content") == nil {
		t.Error("nobody missed an uploaded file")
	}
}

// told is what the gateway says of a visitor: name, address, groups and permissions, as far as there are any.
func told(gateway string, fields ...string) http.Header {
	h := http.Header{"Host": {moduletest.Organisation.Domain}, "Test-Gateway": {gateway}}
	names := []string{"X-Remote-User", "X-Remote-Email", "X-Remote-Groups", "X-Remote-Permissions"}
	for i, f := range fields {
		h.Set(names[i], f)
	}
	return h
}

// TestLogin: members are who the gateway says, and nobody else says so.
func TestLogin(t *testing.T) {
	s := newSite(t, nil)
	account := func(name string) string {
		return s.php(`$u = get_user_by('login', '` + name + `'); echo $u ? implode(',', $u->roles) . ' ' . $u->user_email : 'nobody';`)
	}
	dashboard := func(h http.Header) (int, string) { t.Helper(); return s.ask(http.MethodGet, "/wp-admin/", "", h) }
	const login = "/.well-known/allotment/sso/login?to=%2Fwp-admin%2F"

	for _, c := range []struct {
		who           http.Header
		status        int
		page, account string
	}{
		{told("1", "anna", "anna@ashwell.example", "members,officers"), 200, "dashboard-widgets", "administrator anna@ashwell.example"},
		{told("1", "bert", "anna@ashwell.example", "members", "use,edit"), 200, "dashboard-widgets", "editor"}, // shares her address
		{told("1", "cora", "", "members", "use"), 200, "", "subscriber"},
		{told("1", "anna", "new@ashwell.example", "members"), 200, "", "subscriber new@ashwell.example"}, // no officer any more
		{told("1"), 302, login, "nobody"},                                  // nobody has logged in
		{told("1", "admin", "", "officers"), 302, login, "administrator"},  // the first administrator is no member
		{told("0", "dora", "", "officers"), 403, "wp-login.php", "nobody"}, // not said by the gateway
		{told("1", "<b>eve", "", "officers"), 302, login, "nobody"},        // no name that WordPress could have
	} {
		status, page := dashboard(c.who)
		name := strings.Trim(c.who.Get("X-Remote-User"), "<b>")
		if got := strings.TrimSpace(account(c.who.Get("X-Remote-User"))); status != c.status || !strings.Contains(page, c.page) ||
			name != "admin" && got != c.account {
			t.Errorf("%v: status %d, account %q; want %d, %q", c.who, status, got, c.status, c.account)
		}
	}

	form := told("1")
	form.Set("Content-Type", "application/x-www-form-urlencoded")
	form.Set("Cookie", "wordpress_test_cookie=WP%20Cookie%20check")
	password := "log=admin&testcookie=1&pwd=" + s.box.Secret("web", "admin")
	if status, to := s.ask(http.MethodPost, "/wp-login.php", password, form); status != 302 || !strings.HasPrefix(to, "/.well-known/") {
		t.Errorf("a password from outside: %d, %s", status, to)
	}
	form.Set("Test-Gateway", "0")
	if status, to := s.ask(http.MethodPost, "/wp-login.php", password, form); status != 302 || !strings.HasSuffix(to, "/wp-admin/") {
		t.Errorf("the administrator's password inside the module: %d, %s", status, to)
	}
	if _, to := s.ask(http.MethodGet, "/wp-login.php?action=logout", "", told("1", "anna")); to != "/.well-known/allotment/sso/logout" {
		t.Errorf("logging out leads to %s", to)
	}
	if _, to := s.ask(http.MethodGet, "/wp-login.php?redirect_to=https://evil.example/x%3Fy", "", told("1")); strings.Contains(to, "evil") ||
		!strings.HasSuffix(to, "to=%2Fx%3Fy") {
		t.Errorf("the way back leads to %s", to)
	}
}

// TestForeignPages: the browser sends a member's login by itself, so the REST API wants a nonce, which no other site knows.
func TestForeignPages(t *testing.T) {
	s := newSite(t, nil)
	anna := told("1", "anna", "", "officers")
	anna.Set("Content-Type", "application/json")
	status, page := s.ask(http.MethodPost, "/?rest_route=/wp/v2/posts", `{"title": "x", "status": "publish"}`, anna)
	if status != http.StatusUnauthorized {
		t.Errorf("a post without a nonce: %d %s", status, page)
	}
	_, page = s.ask(http.MethodGet, "/wp-admin/post-new.php", "", told("1", "anna", "", "officers"))
	_, nonce, _ := strings.Cut(page, `createNonceMiddleware( "`)
	nonce, _, _ = strings.Cut(nonce, `"`)
	anna.Set("X-WP-Nonce", nonce)
	status, page = s.ask(http.MethodPost, "/?rest_route=/wp/v2/posts", `{"title": "x", "status": "publish"}`, anna)
	if status != http.StatusCreated {
		t.Errorf("a post with the nonce %q: %d %s", nonce, status, page)
	}
}
