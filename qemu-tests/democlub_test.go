package qemutests

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/builder"
	"allotment/image"
	"allotment/modules/calendar/davtest"
	"allotment/modules/directory/directorytest"
	"allotment/portal/portaltest"
	"allotment/qemu-tests/browser"
	"allotment/qemu-tests/vm"
)

// TestDemoClub is a club's first day, all of it in a browser that looks like an iPad: the claim, the wizard, three people who
// want to join, one identity for web site, calendar and chat, a backup, and its restore on a second machine that has
// nothing. It is what make demo-club shows; pictures of every screen are in docs/screens.
func TestDemoClub(t *testing.T) {
	full(t)
	modules := []string{"directory", "web", "chat", "calendar"}
	target := storage(t)
	d := newDemo(t, "first", modules)
	d.claim()
	d.firstRun(target)
	d.joinAll()
	d.useEverything()
	d.backUp()
	d.Close()

	e := newDemo(t, "second", modules)
	e.claimByBackup(target, d.key)
	e.mustHaveEverything()
}

// TestFirstDay is as much of that day as needs no machine: the claim, the wizard and the three people, on the real portal and
// directory.
func TestFirstDay(t *testing.T) {
	address, password := directorytest.Start(t)
	p := portaltest.StartNew(t, address, password)
	d := &demo{t: t, code: portaltest.Claim, base: p.URL, members: map[string]*browser.Tab{}, screens: t.TempDir(),
		browser: browser.Start(t, browser.Options{})}
	d.officer = d.browser.Open(t)
	d.claim()
	d.firstRun(storage(t))
	d.joinAll()
}

// joinAll has three people ask: one is refused, and one gets into two groups.
func (d *demo) joinAll() {
	d.t.Helper()
	d.join("Anna", "Apfel", "Plot holders", true)
	d.join("Berta", "Biene", "Plot holders", true)
	d.join("Otto", "Unkraut", "Plot holders", false)
	d.joinSecondGroup()
}

// demo is a machine and those who look at it.
type demo struct {
	*vm.VM
	t       *testing.T
	code    string
	base    string // URL
	screens string // folder for pictures
	number  int    // of the last picture
	browser *browser.Browser
	officer *browser.Tab
	key     string // of the backup
	members map[string]*browser.Tab
}

const demoPassword = "seven yellow buckets"

func newDemo(t *testing.T, name string, modules []string) *demo {
	t.Helper()
	source, err := builder.FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	m := bootImage(t, clubImage(t, image.AMD64, modules), vm.Options{
		Memory: 1536, Forward: []int{80, 443}, Limit: vm.Patience(45 * time.Minute), Firmware: vm.UEFI,
	})
	t.Cleanup(func() { showLogs(t, m) })
	d := &demo{VM: m, t: t, code: shownCode(t, m), base: "https://" + m.Address(443), members: map[string]*browser.Tab{},
		screens: filepath.Join(string(source), "docs", "screens", "demo", name)}
	d.browser = browser.Start(t, browser.Options{})
	d.officer = d.browser.Open(t)
	return d
}

// see judges a page of ours, and keeps a picture of it.
func (d *demo) see(tab *browser.Tab, name string) {
	d.t.Helper()
	for _, f := range tab.Faults() {
		d.t.Errorf("%s: %s", name, f)
	}
	d.keep(tab, name)
}

// keep keeps a picture of what a tab shows.
func (d *demo) keep(tab *browser.Tab, name string) {
	d.t.Helper()
	d.number++
	tab.Shot(filepath.Join(d.screens, fmt.Sprintf("%02d-%s.png", d.number, name)))
}

// claim enters the code that the machine's screen shows.
func (d *demo) claim() {
	d.officer.Visit(d.base + "/portal/")
	d.officer.Await("Welcome to your server")
	d.see(d.officer, "claim")
	d.officer.Fill("Claim code", "AAAA-AAAA-AAAA")
	d.officer.Press("Go on")
	d.officer.Await("This is not the claim code")
	d.see(d.officer, "wrong-code")
	d.officer.Fill("Claim code", d.code)
	d.officer.Press("Go on")
	d.officer.Await("Who are you?")
}

// firstRun goes through the wizard. In the middle of it the iPad is closed, and she goes on with another one.
func (d *demo) firstRun(target api.BackupTarget) {
	tab := d.officer
	introduceOlga(tab)
	d.see(tab, "officer")
	tab.Press("Make my account")
	tab.Await("If you ever cannot get in")
	tab.Press("Make ten codes")
	tab.Await("Codes of Olga Oberst")
	d.see(tab, "codes")

	d.officer = d.browser.Open(d.t)
	tab = d.officer
	d.logIn(tab, "olga", demoPassword)
	tab.Visit(d.base + "/portal/first/")
	tab.Await("If you ever cannot get in")
	tab.Choose("I have the codes on paper")
	tab.Press("Go on")
	tab.Await("A second officer")
	d.see(tab, "second-officer")
	tab.Press("Later")
	tab.Await("What is your organisation?")
	tab.Fill("Name", "Seven Hills Garden Club")
	tab.Choose("Garden or allotment club")
	tab.Fill("Time zone", "Europe/London")
	d.see(tab, "organisation")
	tab.Press("Go on")
	d.await(tab, "What shall the server do?")
	d.see(tab, "functions")
	tab.Press("Go on")
	d.await(tab, "The server's name on the internet")
	d.see(tab, "domain")
	tab.Press("Later")
	tab.Await("Where shall backups go?")
	d.see(tab, "backup")
	d.chooseStorage(target)
	tab.Await("Where shall backups go?")
	tab.Press("Go on")
	tab.Await("Invite members")
	tab.Press("Make a link for members")
	tab.Await("Join in at")
	d.see(tab, "poster")
	tab.Press("Go on")
	tab.Await("Your server is ready")
	d.see(tab, "ready")
	tab.Press("To the portal")
	tab.Await("Hello, Olga")
	d.see(tab, "home-officer")
}

// introduceOlga fills in the wizard's form about its first officer.
func introduceOlga(tab *browser.Tab) {
	tab.Fill("First name", "Olga")
	tab.Fill("Last name", "Oberst")
	tab.Fill("Your own mail address", "olga@mail.example")
	tab.Choose("Treasurer")
	tab.Fill("Name to log in with", "olga")
	tab.Fill("Password", demoPassword)
	tab.Fill("The same password again", demoPassword)
}

// await waits for a page that may come after one that tells how long work goes on.
func (d *demo) await(tab *browser.Tab, text string) {
	d.t.Helper()
	for end := time.Now().Add(vm.Patience(3 * time.Minute)); !tab.Shows(text); time.Sleep(time.Second) {
		switch {
		case tab.Shows("Done.") && tab.Shows("Go on"):
			tab.Press("Go on")
		case time.Now().After(end):
			d.t.Fatalf("no page says %q:\n%s", text, tab.Text())
		}
	}
}

// chooseStorage sets the backup up, and keeps the sheet with its key.
func (d *demo) chooseStorage(target api.BackupTarget) {
	tab := d.officer
	tab.Press("Choose a place")
	tab.Press("Storage on the internet")
	d.fillTarget(tab, target)
	d.see(tab, "storage")
	tab.Press("Try it and back up there")
	d.await(tab, "Sheet for the backup")
	d.key = tab.Code()
	d.see(tab, "sheet")
	tab.Choose("I have the sheet on paper")
	tab.Press("Go on")
}

func (d *demo) fillTarget(tab *browser.Tab, target api.BackupTarget) {
	tab.Fill("Address of the service", target.Address)
	tab.Fill("Bucket", target.Folder)
	tab.Fill("Access key", target.User)
	tab.Fill("Secret key", target.Secret)
}

func (d *demo) logIn(tab *browser.Tab, name, password string) {
	d.t.Helper()
	tab.Visit(d.base + "/portal/login")
	tab.Fill("Name or mail address", name)
	tab.Fill("Password", password)
	tab.Press("Log in")
	tab.Await("Log out")
}

var anyLink = regexp.MustCompile(`https?://[^\s<>"]+`)

// mailLink is the link in the newest mail to the address, whose text has the words. Nobody delivers mail here, so the officer reads
// it on her page of outgoing mail.
func (d *demo) mailLink(address, words string) string {
	d.t.Helper()
	for end := time.Now().Add(vm.Patience(2 * time.Minute)); ; {
		d.officer.Visit(d.base + "/portal/box/mail")
		parts := strings.Split(d.officer.Source(), "to "+address)
		for i := len(parts) - 1; i > 0; i-- {
			if link := anyLink.FindString(parts[i]); link != "" && strings.Contains(parts[i], words) {
				return link
			}
		}
		if time.Now().After(end) {
			d.t.Fatalf("no mail to %s says %q:\n%s", address, words, d.officer.Source())
		}
		time.Sleep(time.Second)
	}
}

// join registers somebody, who confirms the address, and whom the officer lets in or not.
func (d *demo) join(given, family, group string, welcome bool) {
	d.t.Helper()
	address := strings.ToLower(given) + "@mail.example"
	tab := d.browser.Open(d.t)
	tab.Visit(d.base + "/portal/register")
	tab.Fill("First name", given)
	tab.Fill("Family name", family)
	tab.Fill("Mail address", address)
	tab.Choose(group)
	tab.Fill("A word to those who decide", "I have plot 12.")
	d.see(tab, "register-"+given)
	time.Sleep(5 * time.Second) // people do not fill in a form at once, programs do
	tab.Press("Send")
	tab.Await("Please look into your mail")
	tab.Visit(d.mailLink(address, "24 hours"))
	tab.Await("Is this address yours?")
	tab.Press("Yes, it is mine")
	tab.Await("Thank you")

	d.officer.Visit(d.base + "/portal/requests")
	d.officer.Press("Answer " + given)
	d.officer.Await("Do you know " + given)
	d.see(d.officer, "request-"+given)
	if !welcome {
		d.officer.Press("No, or for another group")
		d.officer.Fill("Why", "We do not know you. Please come to a work day first.")
		d.officer.Press("No")
		d.officer.Await("gets a mail with your answer")
		return
	}
	d.officer.Press("Yes, let in")
	d.officer.Await("is let in and gets a mail")
	tab.Visit(d.mailLink(address, "7 days"))
	tab.Await("Please choose a password")
	tab.Fill("New password", demoPassword)
	tab.Fill("The same once more", demoPassword)
	d.see(tab, "first-password-"+given)
	tab.Press("Begin")
	tab.Await("Welcome! You are logged in.")
	d.see(tab, "home-"+given)
	d.members[given] = tab
}

// joinSecondGroup has Berta ask for a second group, and the officer say yes.
func (d *demo) joinSecondGroup() {
	tab := d.members["Berta"]
	tab.Visit(d.base + "/portal/groups")
	d.see(tab, "groups")
	tab.Press("Ask to join Work days")
	d.officer.Visit(d.base + "/portal/requests")
	d.officer.Press("Answer Berta")
	d.officer.Press("Yes, let in")
	tab.Visit(d.base + "/portal/groups")
	tab.Await("Work days")
}

// annasPhone is a calendar program with a password of its own, which Anna makes for it.
func (d *demo) annasPhone() *davtest.Member {
	d.t.Helper()
	tab := d.members["Anna"]
	tab.Visit(d.base + "/portal/me/apps")
	tab.Fill("For which app or device", "calendar on my telephone")
	tab.Press("Make a password")
	tab.Await("The password for calendar on my telephone")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // it has no domain yet
	phone, err := davtest.LogIn(d.t.Context(), client, d.base, "anna.apfel", tab.Code())
	if err != nil {
		d.t.Fatal(err)
	}
	return phone
}

// useEverything goes to web site, calendar and chat without another login, and has the telephone write an entry.
func (d *demo) useEverything() {
	d.t.Helper()
	if err := d.annasPhone().AddEvents(d.t.Context(), 1); err != nil {
		d.t.Fatal(err)
	}
	tab := d.members["Anna"]
	tab.Visit(d.base + "/calendar/")
	tab.Await("1 item in collection")
	d.keep(tab, "calendar")
	tab.Visit(d.base + "/wp-admin/profile.php")
	tab.Await("anna.apfel")
	d.keep(tab, "web")
	tab.Visit(d.base + "/chat/")
	tab.Await("Seven Hills Garden Club") // the room for everybody
	d.keep(tab, "chat")
}

// backUp makes a backup and waits for it.
func (d *demo) backUp() {
	d.t.Helper()
	after := uint64(0)
	d.officer.Visit(d.base + "/portal/box/backup")
	d.officer.Press("Back up now")
	mustTell(d.t, d.API(), &after, "backup was made")
	d.officer.Visit(d.base + "/portal/box/backup")
	d.officer.Await("Backed up on")
	d.see(d.officer, "backed-up")
}

// claimByBackup makes a machine that is nobody's what another one was.
func (d *demo) claimByBackup(target api.BackupTarget, key string) {
	d.t.Helper()
	from := len(d.Events())
	tab := d.officer
	tab.Visit(d.base + "/portal/")
	tab.Fill("Claim code", d.code)
	tab.Press("Go on")
	tab.Press("I have a backup of another server")
	tab.Await("Where is the backup?")
	tab.Press("Storage on the internet")
	d.fillTarget(tab, target)
	tab.Fill("Key of the sheet", key)
	tab.Fill("To confirm, please type", "REPLACE EVERYTHING")
	d.see(tab, "restore")
	tab.Press("Replace everything by the backup")
	for _, line := range []string{"^RESTORE-EXCHANGED", "^BOOT-OK "} {
		(&club{VM: d.VM}).mustSay(d.t, &from, regexp.MustCompile(line))
	}
	after := uint64(0)
	mustTell(d.t, d.API(), &after, "is restored")
}

// mustHaveEverything finds the members and the entry on the second machine.
func (d *demo) mustHaveEverything() {
	d.t.Helper()
	tab := d.browser.Open(d.t)
	d.members["Anna"] = tab
	d.logIn(tab, "anna.apfel", demoPassword)
	d.see(tab, "home-Anna")
	mustHave(d.t, d.annasPhone(), 1, 0)
	d.logIn(d.officer, "olga", demoPassword)
	d.officer.Visit(d.base + "/portal/people")
	d.officer.Await("Berta Biene")
	if d.officer.Shows("Otto") {
		d.t.Error("who was refused is among the people")
	}
	d.see(d.officer, "people")
}
